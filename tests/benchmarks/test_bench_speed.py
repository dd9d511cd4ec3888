"""`make bench`: how long speed models take to write, and that llama.cpp runs one of a real model's full shape. Printed, never asserted."""

from __future__ import annotations

import time

import pytest

from servinglab import programs
from servinglab.models import speed
from servinglab.models.shapes import shapes
from tests.benchmarks.test_bench import say


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "IQ4_XS", "F16"])
def test_writing_half_a_billion_weights(kind, tmp_path):
    """Wanted: within 5 s. The seconds of this process alone tell more where others compute beside it."""
    began, ours = time.perf_counter(), time.process_time()
    speed.write(tmp_path / "a.gguf", "speed", kind)
    seconds, own = time.perf_counter() - began, time.process_time() - ours
    print()
    say(f"speed model in {kind}: {seconds:.2f} s ({own:.2f} s of this process), {speed.size(shapes()['speed'], kind) / 1e6:.0f} MB")


@pytest.mark.parametrize("name", ["qwen3-0.6b", "gemma-3-1b"])
def test_the_full_shape_of_a_real_model(name, tmp_path):
    began, ours = time.perf_counter(), time.process_time()
    speed.write(tmp_path / "a.gguf", name, "Q4_0")
    seconds, own = time.perf_counter() - began, time.process_time() - ours
    done = programs.run("llama-bench", "-m", tmp_path / "a.gguf", "-p", "32", "-n", "8", "-r", "1", doing="재기")
    print()
    say(f"{name} in Q4_0: written in {seconds:.2f} s ({own:.2f} s of this process)")
    say("\n  ".join(line for line in done.all.splitlines() if line.startswith("|")))
