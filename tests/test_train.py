"""Training, where PyTorch is installed (`.ci/run` installs it; no lesson needs it)."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

if not os.environ.get("CI"):
    pytest.importorskip("torch", reason="the extra `train` is not installed")

import torch
from safetensors.numpy import load_file

from servinglab.models import forward
from servinglab.models.tutor import corpus as text
from servinglab.models.tutor import network as net
from servinglab.models.tutor import train as training
from servinglab.paths import TUTOR

SHORT = training.Recipe(steps=24, word_epochs=2, batch_tokens=512, prose_length=64, warmup=3)


@pytest.fixture(scope="module")
def small_corpus():
    whole = text.load()
    return text.Corpus(
        items=whole.items[:12],
        followups=[],
        smalltalk=whole.smalltalk[:2],
        offtopic=whole.offtopic[:5],
        offtopic_frames=whole.offtopic_frames[:1],
        refusals=whole.refusals,
        systems=whole.systems,
        prose=whole.prose[:1],
    )


def test_a_short_run_lowers_the_loss_and_is_seeded(small_corpus, tmp_path):
    first = training.train(small_corpus, SHORT, tmp_path / "하나", say=False)
    assert sum(first[-3:]) / 3 < sum(first[:3]) / 3 - 0.5
    again = training.train(small_corpus, SHORT, tmp_path / "둘", say=False)
    assert again == pytest.approx(first, rel=1e-3)
    saved = load_file(tmp_path / "하나" / "model.safetensors")
    committed = load_file(TUTOR / "model.safetensors")
    assert {name: value.shape for name, value in saved.items()} == {name: value.shape for name, value in committed.items()}


def test_going_on_begins_where_the_run_before_ended(small_corpus, tmp_path):
    first = training.train(small_corpus, SHORT, tmp_path / "먼저", say=False)
    again = net.load(tmp_path / "먼저").eval()
    ids = [5, 300, 1200, 7, 99]
    scores = again.logits(again(torch.tensor([ids]))[0])[0].detach().numpy()
    assert np.allclose(scores, forward.Llama(tmp_path / "먼저").logits(ids), atol=1e-3), "every weight is in its place"
    few = replace(training.FURTHER, steps=3, batch_tokens=512, prose_length=64)
    further = training.train(small_corpus, few, tmp_path / "이어서", say=False, start=tmp_path / "먼저")
    assert sum(further) / 3 < sum(first[:3]) / 3 - 0.5
    facts = json.loads((tmp_path / "이어서" / "training.json").read_text(encoding="utf-8"))
    assert facts["before"]["steps"] == SHORT.steps and facts["steps"] == 3
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("먼저", "이어서")]
    assert files[0] == files[1]


def test_prose_is_at_least_a_fifth(small_corpus, tmp_path):
    training.train(small_corpus, SHORT, tmp_path, say=False)
    seen = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))["tokens"]
    assert seen["prose"] / sum(seen.values()) >= 0.20


def test_prose_is_seen_through_noise_and_predicted_without_it(small_corpus):
    tokenizer = training.vocab.train_tokenizer(training.text_of(small_corpus))
    batches = training.Batches(small_corpus, tokenizer, training.Recipe())
    blocks = [batches.prose_block() for _ in range(20)]
    changed = sum(a != b for block in blocks for a, b in zip(block.ids, block.seen, strict=True)) / sum(len(block.ids) for block in blocks)
    assert 0.15 < changed < 0.30, "a quarter is drawn anew, some of it the same again"


def test_only_the_assistants_words_count(small_corpus):
    tokenizer = training.vocab.train_tokenizer(training.text_of(small_corpus))
    batches = training.Batches(small_corpus, tokenizer, SHORT)
    learned = batches.encode(text.Document(text.turn("질문", "답"), small_corpus.items[0].id))
    counted = [i for i, weight in zip(learned.ids, learned.weights, strict=True) if weight]
    assert counted == [*tokenizer.encode("답").ids, tokenizer.token_to_id(training.vocab.END)]
    assert learned.ids[learned.at] == tokenizer.token_to_id(training.vocab.ASSISTANT) and learned.topic == 0


def test_no_document_is_lost_between_epochs(small_corpus):
    """What fills no batch waits: after some epochs every document is in a batch or still waiting, each once."""
    tokenizer = training.vocab.train_tokenizer(training.text_of(small_corpus))
    batches = training.Batches(small_corpus, tokenizer, SHORT)
    given = [[training.Sequence([number] * (1 + number % 90), [1.0]) for number in range(first, first + 100)] for first in (0, 100)]
    made = [batch for epoch in given for batch in batches.full_batches(epoch)]
    assert {training.padded(sequence) for batch in made for sequence in batch} > {16, 32}
    assert all(len({training.padded(sequence) for sequence in batch}) == 1 for batch in made)
    there = [s.ids[0] for part in [*made, *batches.waiting.values()] for s in part]
    assert sorted(there) == list(range(200))


def test_rows_that_round_the_product_count_nothing(small_corpus):
    """The loss of a batch is the plain mean over its words, however many rows were added."""
    torch.manual_seed(0)
    tokenizer = training.vocab.train_tokenizer(training.text_of(small_corpus))
    batches = training.Batches(small_corpus, tokenizer, SHORT)
    network, head = net.Network(net.CONFIG).eval(), torch.nn.Linear(net.CONFIG["hidden_size"], len(batches.topics))
    prose = [batches.prose_block() for _ in range(3)]
    words, topic = training.losses_of(network, head, prose, "cpu")
    ids, seen = (torch.tensor([getattr(block, name) for block in prose]) for name in ("ids", "seen"))
    plain = torch.nn.functional.cross_entropy(network.logits(network(seen)[0][:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert words.item() == pytest.approx(plain.item(), rel=1e-5) and topic.item() == 0


def test_the_network_starts_by_telling_topics_as_the_bag_of_words_does(small_corpus):
    """Part ① would be lost if the averaging layer or the head were put in the wrong place."""
    torch.manual_seed(0)
    tokenizer = training.vocab.train_tokenizer(training.text_of(small_corpus))
    batches = training.Batches(small_corpus, tokenizer, training.Recipe(word_epochs=30))
    network = net.Network(net.CONFIG).eval()
    head = torch.nn.Linear(net.CONFIG["hidden_size"], len(batches.topics))
    training.start_from(network, head, *training.words_first(batches, training.Recipe(word_epochs=30)))
    asked = [batches.encode(document) for document in batches.writer.questions()]
    ids, _, _, topics, places = training.to_tensors(asked, "cpu")
    told = head(network(ids)[1][torch.arange(len(asked)), places]).argmax(dim=-1)
    assert (told == topics).float().mean() > 0.5, "chance would be one in fifteen"


def test_orthogonal_makes_singular_values_alike():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(training.orthogonal(torch.randn(64, 256)))
    assert values.min() > 0.5 and values.max() < 1.5


def test_network_config_is_the_committed_one():
    assert json.loads((TUTOR / "config.json").read_text(encoding="utf-8")) == net.CONFIG
