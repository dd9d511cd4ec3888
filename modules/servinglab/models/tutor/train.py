"""Train the tutor: `python -m servinglab.models.tutor.train --out FOLDER` (needs the extra `train`).

One run is seeded. A GPU is used where PyTorch finds one; on a CPU with AMX the products are computed in bfloat16. Hidden
matrices are trained with Muon, embeddings and norms with AdamW.

A run has two parts. ① The token embeddings alone learn, in seconds, which fact a question is about: their mean goes into a
linear head, as in fastText (Joulin et al. 2016). The network starts from them, with a first attention layer that averages.
② The whole network learns to answer. The head stays as a side task on the lower layers, which keeps the question's meaning in
view, and is then thrown away. Without ① the same network needs many times the steps to tell the questions apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from servinglab.models.tutor import corpus as text
from servinglab.models.tutor import network as net
from servinglab.models.tutor import vocabulary as vocab
from servinglab.paths import TUTOR


class Sequence(NamedTuple):
    """Token ids, how much predicting each one counts, the topic's number (-1: none), where it is to be told, and what the
    network sees in place of the ids, where that differs."""

    ids: list[int]
    weights: list[float]
    topic: int = -1
    at: int = 0
    seen: list[int] | None = None


WORD_SCALE = 8.0
"""Mean embeddings are small; scaled, the head learns from them at once."""

HEAD_SCALE = 0.7
"""Brings the head's scores back to their size, because the network normalises what it reads: else they are wildly sure."""

LENGTHS = 16
"""Sequences are padded to a multiple of this: on a CPU PyTorch prepares its kernels anew for each shape it meets."""


@dataclass(frozen=True)
class Recipe:
    """What a run depends on; written beside the weights."""

    steps: int = 3600
    word_epochs: int = 6
    batch_tokens: int = 4096
    prose_share: float = 0.21
    prose_length: int = 256
    snippet: int = 32
    noise: float = 0.25
    lr_muon: float = 0.02
    lr_adam: float = 4e-3
    warmup: int = 40
    weight_decay: float = 0.05
    dropout: float = 0.1
    cut: float = 0.04
    topic_weight: float = 1.0
    seed: int = 20261126


FURTHER = Recipe(steps=550, lr_muon=0.006, lr_adam=1.2e-3, topic_weight=0.0)
"""For going on from weights of an earlier run: small steps, and no side task, because its head was thrown away."""


class Batches:
    """Endless training batches: conversations of like length together, and blocks of prose, `prose_share` of the tokens."""

    def __init__(self, corpus: text.Corpus, tokenizer: Tokenizer, recipe: Recipe) -> None:
        self.recipe, self.tokenizer = recipe, tokenizer
        self.rng = random.Random(recipe.seed)
        self.writer = text.Writer(corpus, recipe.seed)
        self.numbers = tokenizer.get_vocab()
        names = [item.id for item in corpus.items] + [talk.id for talk in corpus.smalltalk] + [text.OFF_TOPIC]
        self.topics = {name: number for number, name in enumerate(names)}
        self.prose = [i for part in corpus.prose for i in [*tokenizer.encode(part).ids, vocab.SPECIAL.index(vocab.END)]]
        self.seen = {"conversation": 0, "prose": 0}
        self.waiting: dict[int, list[Sequence]] = {}

    def encode(self, document: text.Document) -> Sequence:
        """Only the assistant's words are to be predicted."""
        token = self.numbers
        ids: list[int] = []
        weights: list[float] = []
        at = 0
        for message in document.messages:
            own = message["role"] == "assistant"
            at = len(ids) if own else at
            body = self.tokenizer.encode(message["content"]).ids if own else self.rough(message["content"])
            ids += [token[f"<|{message['role']}|>"], *body, token[vocab.END]]
            weights += [0.0] + [1.0 if own else 0.0] * (len(body) + 1)
        if document.messages[-1]["role"] == "user":
            at = len(ids)
            ids.append(token[vocab.ASSISTANT])
            weights.append(0.0)
        return Sequence(ids, weights, -1 if document.topic is None else self.topics[document.topic], at)

    def rough(self, words: str) -> list[int]:
        """Tokens of a text cut at random places: a typo or an unseen ending then looks less strange.

        BPE dropout would do the same, but the `tokenizers` package cannot be seeded for it.
        """
        places = [0, *(i for i in range(1, len(words)) if self.rng.random() < self.recipe.cut), len(words)]
        return [i for start, end in itertools.pairwise(places) for i in self.tokenizer.encode(words[start:end]).ids]

    def prose_block(self) -> Sequence:
        """Snippets of the prose one after another, with some of the tokens that the network sees drawn anew.

        Whole passages it would soon know by heart and be sure of itself on every other text, its perplexity beyond that of a
        guess. Noise in the input does what smoothing does for n-grams (Xie et al. 2017, arXiv 1703.02573).
        """
        recipe = self.recipe
        ids: list[int] = []
        while len(ids) < recipe.prose_length:
            start, length = self.rng.randrange(len(self.prose)), self.rng.randint(4, recipe.snippet)
            ids += self.prose[start : start + length]
        ids = ids[: recipe.prose_length]
        seen = [self.rng.choice(self.prose) if self.rng.random() < recipe.noise else token for token in ids]
        return Sequence(ids, [1.0] * len(ids), seen=seen)

    def __iter__(self) -> Iterator[list[Sequence]]:
        while True:
            for batch in self.full_batches(self.encode(document) for document in self.writer.conversations()):
                while self.seen["prose"] < self.recipe.prose_share * sum(self.seen.values()):
                    blocks = [self.prose_block() for _ in range(self.recipe.batch_tokens // self.recipe.prose_length)]
                    self.seen["prose"] += sum(len(block.ids) for block in blocks)
                    yield blocks
                self.seen["conversation"] += sum(len(sequence.ids) for sequence in batch)
                yield batch

    def full_batches(self, epoch: Iterable[Sequence]) -> list[list[Sequence]]:
        """Batches of about `batch_tokens` with one padded length each. What fills no batch waits for the next epoch."""
        batches: list[list[Sequence]] = []
        for sequence in epoch:
            longest = padded(sequence)
            alike = self.waiting.setdefault(longest, [])
            alike.append(sequence)
            if len(alike) >= self.recipe.batch_tokens // longest:
                batches.append(self.waiting.pop(longest))
        self.rng.shuffle(batches)
        return batches


def padded(sequence: Sequence) -> int:
    return -(-len(sequence.ids) // LENGTHS) * LENGTHS


def to_tensors(batch: list[Sequence], device: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pad a batch. Returns what is seen, ids and weights, all (sequences, longest), topics and their places, both (sequences,)."""
    longest = max(padded(sequence) for sequence in batch)
    ids = torch.tensor([s.ids + [0] * (longest - len(s.ids)) for s in batch])
    seen = torch.tensor([(s.seen or s.ids) + [0] * (longest - len(s.ids)) for s in batch])
    weights = torch.tensor([s.weights + [0.0] * (longest - len(s.ids)) for s in batch])
    topics, places = torch.tensor([s.topic for s in batch]), torch.tensor([s.at for s in batch])
    return seen.to(device), ids.to(device), weights.to(device), topics.to(device), places.to(device)


def words_first(batches: Batches, recipe: Recipe) -> tuple[Tensor, nn.Linear]:
    """Part ①. Returns embeddings (vocabulary, hidden / 2) whose mean tells the topic, and the head that reads it."""
    half = net.CONFIG["hidden_size"] // 2
    bag = nn.EmbeddingBag(net.CONFIG["vocab_size"], half, mode="mean")
    nn.init.normal_(bag.weight, std=0.02)
    head = nn.Linear(half, len(batches.topics))
    stepper = torch.optim.AdamW([*bag.parameters(), *head.parameters()], lr=5e-3, weight_decay=0.01)
    for epoch in range(recipe.word_epochs):
        stepper.param_groups[0]["lr"] = 5e-3 * (1 - epoch / recipe.word_epochs)
        pool = [batches.encode(document) for document in batches.writer.questions()]
        for start in range(0, len(pool), 256):
            part = pool[start : start + 256]
            words = torch.tensor([i for sequence in part for i in sequence.ids])
            starts = torch.tensor([0, *itertools.accumulate(len(sequence.ids) for sequence in part)][:-1])
            told = head(F.dropout(bag(words, starts) * WORD_SCALE, 0.2))
            loss = F.cross_entropy(told, torch.tensor([sequence.topic for sequence in part]), label_smoothing=0.05)
            stepper.zero_grad()
            torch.autograd.backward(loss)
            stepper.step()
    return bag.weight.detach(), head


@torch.no_grad()
def start_from(network: net.Network, head: nn.Linear, words: Tensor, told: nn.Linear) -> None:
    """Put part ①'s result into the network so that it begins by telling topics as well as the bag of words did.

    The lower half of the residual stream holds the embeddings. The first attention layer looks at all earlier tokens
    alike (queries and keys 0) and writes their mean into the upper half, where the head reads it.
    """
    half, size = words.shape[1], net.CONFIG["head_dim"]
    first = network.layers[0]
    assert isinstance(first, net.Block)
    network.embed_tokens.weight[:, :half] = words * (0.5 / words.norm(dim=1).mean())
    first.q_proj.weight.mul_(0.1)
    first.k_proj.weight.mul_(0.1)
    first.v_proj.weight.mul_(0.1)[:, :half] += torch.eye(half)
    share = net.CONFIG["num_attention_heads"] // net.CONFIG["num_key_value_heads"]
    for kv in range(net.CONFIG["num_key_value_heads"]):
        for query in range(kv * share, (kv + 1) * share):
            rows = slice(half + kv * size, half + (kv + 1) * size)
            first.o_proj.weight[rows, query * size : (query + 1) * size] += torch.eye(size) / share
    head.weight[:, half:] = told.weight * HEAD_SCALE
    head.bias.copy_(told.bias)


def losses_of(network: net.Network, head: nn.Linear, batch: list[Sequence], device: str) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the words, and that of the topics (both nats; 0 where a batch has none).

    Positions of weight 0 are left out of the large vocabulary product, save a few that round its rows to a multiple of 512.
    """
    seen, ids, weights, topics, places = to_tensors(batch, device)
    hidden, topic = network(seen)
    share = weights[:, 1:].reshape(-1)
    rows = share.nonzero().squeeze(1)
    share, rows = (F.pad(kept, (0, -len(rows) % 512)) for kept in (share[rows], rows))
    scores = network.logits(hidden[:, :-1].flatten(0, 1)[rows]).float()
    each = F.cross_entropy(scores, ids[:, 1:].reshape(-1)[rows], reduction="none")
    words = (each * share).sum() / share.sum()
    if (topics < 0).all():
        return words, words.new_zeros(())
    told = head(topic[torch.arange(len(batch), device=device), places]).float()
    return words, F.cross_entropy(told, topics, ignore_index=-1, label_smoothing=0.05)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal before the step (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    `torch.optim.Muon` iterates in bfloat16, which takes 13 s a step on a CPU without bfloat16 arithmetic; this one float32.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("momentum", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(torch.lerp(p.grad, mean, group["momentum"]))  # Nesterov
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix, roughly: five steps of Newton and Schulz with Jordan's quintic coefficients."""
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


def optimizers(network: net.Network, head: nn.Linear, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [p for p in network.layers.parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if not any(p is m for m in matrices)] + list(head.parameters())
    return [
        Muon(matrices, lr=recipe.lr_muon, momentum=0.95, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.lr_adam, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, recipe: Recipe) -> float:
    """Learning-rate factor: linear warm-up, level, linear to zero over the last half."""
    return min(1.0, (step + 1) / recipe.warmup, 2.0 * (recipe.steps - step) / recipe.steps)


def quick_bfloat16(device: str) -> bool:
    """Whether bfloat16 products are quicker here. Without AMX a CPU takes longer for them than for float32."""
    return device == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))


def train(corpus: text.Corpus, recipe: Recipe, out: Path, say: bool = True, start: Path | None = None) -> list[float]:
    """Train and save into `out`, from scratch or from the model folder `start`. Returns the loss of every step (nats per token)."""
    began = time.perf_counter()
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer.from_file(str(start / "tokenizer.json")) if start else vocab.train_tokenizer(text_of(corpus))
    network = (net.load(start, recipe.dropout) if start else net.Network(net.CONFIG, recipe.dropout)).to(device)
    batches = Batches(corpus, tokenizer, recipe)
    head = nn.Linear(net.CONFIG["hidden_size"], len(batches.topics)).to(device)
    if start is None:
        start_from(network, head, *words_first(batches, recipe))
    steppers = optimizers(network, head, recipe)
    base = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    losses: list[float] = []
    topics: list[float] = []
    for step, batch in zip(range(recipe.steps), batches, strict=False):
        with torch.autocast(device, torch.bfloat16, enabled=quick_bfloat16(device)):
            words, topic = losses_of(network, head, batch, device)
        torch.autograd.backward(words + recipe.topic_weight * topic)
        groups = [group for stepper in steppers for group in stepper.param_groups]
        for group, lr in zip(groups, base, strict=True):
            group["lr"] = lr * schedule(step, recipe)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        losses.append(words.item())
        topics.append(topic.item())
        if say and (step % 20 == 19 or step == recipe.steps - 1):
            report(step, losses, topics, batches, time.perf_counter() - began, recipe)
    out.mkdir(parents=True, exist_ok=True)
    net.save(network, out)
    vocab.save(tokenizer, out)
    facts = {**asdict(recipe), "seconds": round(time.perf_counter() - began), "device": device, "tokens": batches.seen}
    if start:
        facts["before"] = json.loads((start / "training.json").read_text(encoding="utf-8"))
    facts |= {"last_loss": round(sum(losses[-50:]) / len(losses[-50:]), 4), "torch": torch.__version__}
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return losses


def text_of(corpus: text.Corpus) -> list[str]:
    """All text the tokenizer learns from."""
    parts = [question for question, _ in corpus.phrasings()] + corpus.prose + corpus.refusals
    for item in corpus.items:
        parts += [item.answer, item.simple, item.english]
    parts += [entry.answer for entry in corpus.followups] + [entry.answer for entry in corpus.smalltalk]
    return parts + [line for lines in corpus.systems.values() for line in lines]


def report(step: int, losses: list[float], topics: list[float], batches: Batches, seconds: float, recipe: Recipe) -> None:
    done = step + 1
    left = seconds / done * (recipe.steps - done)
    tokens = sum(batches.seen.values())
    print(
        f"step {done}/{recipe.steps}  words {sum(losses[-20:]) / 20:.3f}  topic {sum(topics[-20:]) / 20:.3f}  {tokens / seconds:.0f} tok/s  "
        f"{seconds / 60:.1f} min, {left / 60:.1f} min left",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=TUTOR)
    parser.add_argument("--start", type=Path, help="a model folder to go on from, as after adding facts")
    arguments = parser.parse_args()
    recipe = FURTHER if arguments.start else Recipe()
    train(text.load(arguments.data), recipe, arguments.out, start=arguments.start)


if __name__ == "__main__":
    main()
