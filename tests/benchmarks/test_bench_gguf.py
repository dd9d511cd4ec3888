"""`make bench`: how long the worst file keeps the reader of model files busy. Printed, never asserted."""

from __future__ import annotations

from tests import mutants
from tests.benchmarks.test_bench import say
from tests.test_gguf_file import outcomes


def test_the_worst_header(tmp_path):
    """Wanted: within 1 s of processor time and 200 MB."""
    found, memory = outcomes("gguf", tmp_path / "m", mutants.extremes())
    label, _, seconds, _ = max(found, key=lambda entry: entry[2])
    print()
    say(f"worst header ({label}): {seconds:.2f} s of processor time; {memory / 1e6:.0f} MB at most over {len(found)} files")
