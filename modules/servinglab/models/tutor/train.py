"""Train the tutor: `python -m servinglab.models.tutor.train --out FOLDER` (needs the extra `train`).

One run is seeded and takes at most 40 minutes on two CPU cores; a GPU is used where PyTorch finds one. Hidden matrices
are trained with Muon, embeddings and norms with AdamW.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from servinglab.models.tutor import corpus as text
from servinglab.models.tutor import network as net
from servinglab.models.tutor import vocabulary as vocab
from servinglab.paths import TUTOR

Sequence = tuple[list[int], list[float]]
"""Token ids, and how much predicting each one counts in the loss."""


@dataclass(frozen=True)
class Recipe:
    """What a run depends on; written beside the weights."""

    steps: int = 1500
    batch_tokens: int = 4096
    prose_share: float = 0.22
    prose_length: int = 256
    lr_muon: float = 0.02
    lr_adam: float = 4e-3
    warmup: int = 40
    weight_decay: float = 0.05
    dropout: float = 0.05
    bpe_dropout: float = 0.08
    question_weight: float = 0.1
    seed: int = 20261121


class Batches:
    """Endless training batches: conversations of like length together, and blocks of prose, `prose_share` of the tokens."""

    def __init__(self, corpus: text.Corpus, tokenizer: Tokenizer, recipe: Recipe) -> None:
        self.recipe, self.tokenizer = recipe, tokenizer
        self.rng = random.Random(recipe.seed)
        self.writer = text.Writer(corpus, recipe.seed)
        # A second tokenizer that now and then skips a merge: a typo or an unseen ending then looks less strange.
        self.rough = Tokenizer.from_str(tokenizer.to_str())
        self.rough.model.dropout = recipe.bpe_dropout
        self.prose = [i for part in corpus.prose for i in [*tokenizer.encode(part).ids, vocab.SPECIAL.index(vocab.END)]]
        self.seen = {"conversation": 0, "prose": 0}

    def encode(self, messages: list[text.Message]) -> Sequence:
        """Only the assistant's words count fully; other words count `question_weight`."""
        token = self.tokenizer.get_vocab()
        ids: list[int] = []
        weights: list[float] = []
        for message in messages:
            own = message["role"] == "assistant"
            body = (self.tokenizer if own else self.rough).encode(message["content"]).ids
            ids += [token[f"<|{message['role']}|>"], *body, token[vocab.END]]
            weights += [0.0] + [1.0 if own else self.recipe.question_weight] * len(body) + [1.0 if own else 0.0]
        return ids, weights

    def prose_block(self) -> Sequence:
        length = self.recipe.prose_length
        start = self.rng.randrange(max(1, len(self.prose) - length))
        ids = self.prose[start : start + length]
        return ids, [1.0] * len(ids)

    def __iter__(self) -> Iterator[list[Sequence]]:
        budget = self.recipe.batch_tokens
        while True:
            pool = [self.encode(messages) for messages in self.writer.epoch()]
            self.rng.shuffle(pool)
            window = 24 * budget // 64  # sort by length within a window, so that padding is small but order stays random
            batches: list[list[Sequence]] = []
            for at in range(0, len(pool), window):
                part = sorted(pool[at : at + window], key=lambda pair: len(pair[0]))
                while part:
                    count = max(1, budget // len(part[-1][0]))
                    batches.append(part[-count:])
                    del part[-count:]
            self.rng.shuffle(batches)
            for batch in batches:
                while self.seen["prose"] < self.recipe.prose_share * sum(self.seen.values()):
                    blocks = [self.prose_block() for _ in range(budget // self.recipe.prose_length)]
                    self.seen["prose"] += sum(len(ids) for ids, _ in blocks)
                    yield blocks
                self.seen["conversation"] += sum(len(ids) for ids, _ in batch)
                yield batch


def to_tensors(batch: list[Sequence], device: str) -> tuple[Tensor, Tensor]:
    """Pad a batch. Returns ids and weights, both (sequences, longest)."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
    weights = torch.tensor([w + [0.0] * (longest - len(w)) for _, w in batch])
    return ids.to(device), weights.to(device)


def loss_of(network: net.Network, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy (nats per token). Positions of weight 0 are left out of the large vocabulary product."""
    hidden = network(ids[:, :-1])
    counted = weights[:, 1:] > 0
    losses = F.cross_entropy(network.logits(hidden[counted]), ids[:, 1:][counted], reduction="none")
    share = weights[:, 1:][counted]
    return (losses * share).sum() / share.sum()


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


def optimizers(network: net.Network, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [p for p in network.layers.parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if not any(p is m for m in matrices)]
    return [
        Muon(matrices, lr=recipe.lr_muon, momentum=0.95, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.lr_adam, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, recipe: Recipe) -> float:
    """Learning-rate factor: linear warm-up, level, linear to zero over the last half."""
    return min(1.0, (step + 1) / recipe.warmup, 2.0 * (recipe.steps - step) / recipe.steps)


def train(corpus: text.Corpus, recipe: Recipe, out: Path, say: bool = True) -> list[float]:
    """Train and save into `out`. Returns the loss of every step (nats per token)."""
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = vocab.train_tokenizer(text_of(corpus))
    network = net.Network(net.CONFIG, recipe.dropout).to(device)
    steppers = optimizers(network, recipe)
    base = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    batches = Batches(corpus, tokenizer, recipe)
    losses: list[float] = []
    began = time.perf_counter()
    for step, batch in zip(range(recipe.steps), batches, strict=False):
        loss = loss_of(network, *to_tensors(batch, device))
        loss.backward()  # type: ignore[no-untyped-call]
        groups = [group for stepper in steppers for group in stepper.param_groups]
        for group, lr in zip(groups, base, strict=True):
            group["lr"] = lr * schedule(step, recipe)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        losses.append(loss.item())
        if say and (step % 20 == 19 or step == recipe.steps - 1):
            report(step, losses, batches, time.perf_counter() - began, recipe)
    out.mkdir(parents=True, exist_ok=True)
    net.save(network, out)
    vocab.save(tokenizer, out)
    facts = {**asdict(recipe), "seconds": round(time.perf_counter() - began), "device": device, "tokens": batches.seen}
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


def report(step: int, losses: list[float], batches: Batches, seconds: float, recipe: Recipe) -> None:
    done = step + 1
    left = seconds / done * (recipe.steps - done)
    tokens = sum(batches.seen.values())
    print(
        f"step {done}/{recipe.steps}  loss {sum(losses[-20:]) / 20:.3f}  {tokens / seconds:.0f} tok/s  "
        f"{seconds / 60:.1f} min, {left / 60:.1f} min left",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=TUTOR)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    arguments = parser.parse_args()
    train(text.load(arguments.data), Recipe(steps=arguments.steps), arguments.out)


if __name__ == "__main__":
    main()
