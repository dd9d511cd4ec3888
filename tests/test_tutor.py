"""How good the committed weights are, through `llama-server`'s chat endpoint, at F16 and at Q8_0."""

from __future__ import annotations

import asyncio
import re
import subprocess

import pytest

from servinglab import engines
from servinglab.bench import ask_all, tutor_eval
from servinglab.engines.llama_server import find
from servinglab.models import gguf_path
from servinglab.models.tutor import corpus as text
from servinglab.paths import TUTOR


@pytest.fixture(scope="module")
def corpus():
    return text.load()


@pytest.fixture(scope="module", params=["F16", "Q8_0"])
def scored(request, corpus):
    with engines.start(file_type=request.param) as server:
        return request.param, tutor_eval.table(tutor_eval.evaluate(server.url, corpus))


def test_right_on_the_frozen_questions(scored):
    _, rows = scored
    right, asked = rows["all"]
    assert right / asked >= 0.90, rows


def test_off_topic_is_declined_and_on_topic_is_not(scored):
    _, rows = scored
    assert rows["offtopic"][0] / rows["offtopic"][1] >= 0.80, rows
    assert rows["refused"][0] / rows["refused"][1] <= 0.02, rows


def test_model_card_gives_these_figures(scored):
    """The card is written from a run; a new training without a new card fails here."""
    file_type, rows = scored
    card = (TUTOR / "README.md").read_text(encoding="utf-8")
    line = re.search(rf"\| {file_type} \|(.*)\|", card)
    assert line, "the card has no row for this file type"
    printed = [tuple(map(int, cell)) for cell in re.findall(r"(\d+) / (\d+)", line.group(1))]
    for name, (said, of) in zip(("all", "general", "confusable", "offtopic", "refused"), printed, strict=True):
        assert of == rows[name][1]
        assert abs(said - rows[name][0]) <= 1, f"{name}: another CPU may round one answer differently, not more"


def test_follow_ups_and_styles_work(corpus):
    """Two-turn conversations and the three system prompts, on questions that were trained on."""
    items = {item.id: item for item in corpus.items}
    talks, checks = [], []
    for follow in corpus.followups:
        first = items[follow.first]
        head = text.turn(first.questions[0], first.answer)
        talks.append([*head, {"role": "user", "content": follow.question}])
        checks.append(follow.fact)
    with engines.start() as server:
        records = asyncio.run(ask_all(server.url, talks, concurrency=4, temperature=0, max_tokens=96))
        right = sum(text.says(fact, record.require().text) for fact, record in zip(checks, records, strict=True))
        assert right / len(talks) >= 0.9
        some = corpus.items[::25]
        for style in ("one", "simple", "english"):
            system = {"role": "system", "content": corpus.systems[style][0]}
            asked = [[system, {"role": "user", "content": item.questions[0]}] for item in some]
            records = asyncio.run(ask_all(server.url, asked, concurrency=4, temperature=0, max_tokens=96))
            same = sum(record.text == item.reply(style) for item, record in zip(some, records, strict=True))
            assert same / len(some) >= 0.8, style


def test_greeting_and_identity():
    with engines.start() as server:
        for question, word in (("안녕", "안녕"), ("너는 누구야", "튜터"), ("고마워", "")):
            reply = server.client.chat.completions.create(
                model="tutor", temperature=0, max_tokens=64, messages=[{"role": "user", "content": question}]
            )
            assert word in (reply.choices[0].message.content or "") and reply.choices[0].message.content


def test_perplexity_of_unseen_prose_means_something():
    """Far below that of a guess, which is the size of the vocabulary: prose known by heart once made it worse than that."""
    settings = ["-m", str(gguf_path("tutor")), "-f", str(TUTOR / "holdout.md"), "-c", "256", "-t", "1"]
    for _ in range(12):  # the program sometimes ends before it has written its last lines (llama.cpp issue 22142)
        done = subprocess.run([find("llama-perplexity"), *settings], capture_output=True, text=True, encoding="utf-8", timeout=60)
        found = re.search(r"Final estimate: PPL = ([\d.]+)", done.stdout + done.stderr)
        if found:
            break
    assert found and float(found[1]) < 400
