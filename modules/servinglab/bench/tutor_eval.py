"""How good the tutor is: the frozen questions of `data/tutor/eval.yaml`, asked through a server's chat endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from servinglab.bench.client import ask_all
from servinglab.models.tutor.corpus import Corpus, Item, overlap, says
from servinglab.paths import TUTOR

REFUSAL = ["답할 수 없|답하지 못", "서빙"]


class Question(BaseModel):
    """One evaluation question: about `item`, in a `group`."""

    model_config = ConfigDict(extra="forbid")

    question: str
    item: str
    group: Literal["general", "confusable"] = "general"


class Evaluation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    questions: list[Question]
    offtopic: list[str]


@dataclass(frozen=True)
class Result:
    """One answer and its verdict."""

    group: str
    question: str
    item: str
    answer: str
    right: bool
    refused: bool


def load(path: Path = TUTOR / "eval.yaml") -> Evaluation:
    return Evaluation.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def is_right(item: Item, neighbours: Sequence[Item], answer: str) -> bool:
    """The item's fact is stated and no confusable neighbour's is."""
    return says(item.fact, answer) and not any(says(other.fact, answer) for other in neighbours)


def judge(question: Question, items: dict[str, Item], answer: str) -> Result:
    item = items[question.item]
    neighbours = [items[name] for name in item.neighbours]
    right = is_right(item, neighbours, answer)
    return Result(question.group, question.question, item.id, answer, right, says(REFUSAL, answer))


def answers(url: str, questions: Sequence[str], model: str, key: str = "") -> list[str]:
    """Greedy answers of the server, in order. Raises StreamBroken if one is incomplete."""
    conversations = [[{"role": "user", "content": question}] for question in questions]
    records = asyncio.run(
        ask_all(url, conversations, concurrency=4, model=model, key=key, temperature=0, max_tokens=160)
    )
    return [record.require().text for record in records]


def evaluate(url: str, corpus: Corpus, model: str = "tutor", key: str = "") -> list[Result]:
    """Ask every frozen question. Off-topic questions come out as group "offtopic", right when declined."""
    asked = load()
    items = {item.id: item for item in corpus.items}
    replies = answers(url, [q.question for q in asked.questions] + asked.offtopic, model, key)
    results = [judge(q, items, reply) for q, reply in zip(asked.questions, replies, strict=False)]
    for question, reply in zip(asked.offtopic, replies[len(asked.questions) :], strict=True):
        refused = says(REFUSAL, reply)
        results.append(Result("offtopic", question, "", reply, refused, refused))
    return results


def look_up(corpus: Corpus) -> list[Result]:
    """The baseline: answer with the item whose training phrasing shares most of the question's character trigrams."""
    items = {item.id: item for item in corpus.items}
    phrasings = list(corpus.phrasings())
    results = []
    for question in load().questions:
        _, nearest = max(phrasings, key=lambda pair: overlap(question.question, pair[0]))
        reply = items[nearest].answer if nearest in items else ""
        results.append(judge(question, items, reply))
    return results


def table(results: Sequence[Result]) -> dict[str, tuple[int, int]]:
    """Right answers and questions by group, with "all" for the on-topic ones and "refused" for refusals among them."""
    on_topic = [r for r in results if r.group != "offtopic"]
    rows = {"all": (sum(r.right for r in on_topic), len(on_topic))}
    for group in ("general", "confusable", "offtopic"):
        part = [r for r in results if r.group == group]
        rows[group] = (sum(r.right for r in part), len(part))
    rows["refused"] = (sum(r.refused for r in on_topic), len(on_topic))
    return rows
