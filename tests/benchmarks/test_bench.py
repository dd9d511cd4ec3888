"""`make bench`: figures, printed and never asserted, because a shared machine may be busy."""

from __future__ import annotations

import asyncio
import statistics
import time

from servinglab import engines, models
from servinglab.bench import ask, tutor_eval
from servinglab.models import files
from servinglab.models.tutor import corpus as text
from servinglab.paths import TUTOR

ROWS = ("all", "general", "confusable", "offtopic", "refused")


def say(line: str) -> None:
    print(f"  {line}", flush=True)


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms (middle of {len(seconds)}, {min(seconds) * 1000:.0f}-{max(seconds) * 1000:.0f})"


def test_start_and_first_token():
    """Wanted: ready within 2 s of `start`, first token within 0.3 s."""
    print()
    models.gguf_path("tutor")
    ready, first = [], []
    for _ in range(5):
        began = time.perf_counter()
        with engines.start() as server:
            ready.append(time.perf_counter() - began)
            record = asyncio.run(ask(server.url, [{"role": "user", "content": "KV 캐시가 뭐예요?"}], temperature=0))
            first.append(record.require().ttft or 0.0)
    say(f"llama-server with the tutor: ready after {spread(ready)}")
    say(f"first token of its first request: {spread(first)}")


def test_making_the_files():
    print()
    for name, file_type in (("F16", "F16"), ("Q8_0", "Q8_0")):
        models.gguf_path("tutor", file_type).unlink()
        began = time.perf_counter()
        path = models.gguf_path("tutor", file_type)
        say(f"tutor as GGUF {name}: {time.perf_counter() - began:.2f} s, {path.stat().st_size / 1e6:.1f} MB")
    files.speed_gguf().unlink()
    began = time.perf_counter()
    path = files.speed_gguf()
    say(f"speed model: {time.perf_counter() - began:.2f} s, {path.stat().st_size / 1e6:.0f} MB, wanted within 5 s")


def test_tutor_evaluation():
    """Each group's figure at F16 and Q8_0, and the look-up's beside it."""
    corpus = text.load()
    print()
    say("              " + "".join(f"{name:>14}" for name in ROWS))
    for file_type in ("F16", "Q8_0"):
        with engines.start(file_type=file_type) as server:
            results = tutor_eval.evaluate(server.url, corpus)
        show(f"튜터 {file_type}", tutor_eval.table(results))
        if file_type == "F16":
            wrong = [r for r in results if not r.right]
    show("look-up", tutor_eval.table(tutor_eval.look_up(corpus)))
    for result in wrong:
        say(f"wrong: [{result.item or 'offtopic'}] {result.question} -> {result.answer}")
    say(f"evaluation file: {TUTOR / 'eval.yaml'}")


def show(label: str, rows: dict[str, tuple[int, int]]) -> None:
    say(f"{label:<14}" + "".join(f"{rows[name][0]:>8} / {rows[name][1]:<3}" for name in ROWS))
