"""`make bench`: our quantizers beside the `gguf` package's, and the tutor's quality by type. Printed, never asserted."""

from __future__ import annotations

import time

import gguf
import numpy as np
import pytest

from servinglab import models
from servinglab.models import gguf_file, quantize, tools
from servinglab.models.shapes import find_shape
from servinglab.paths import TUTOR
from tests.benchmarks.test_bench import say

SHAPES = sorted({(256, 256), (4096, 256), *find_shape("speed").matrices().values()})


def seconds(work, repeats=7):
    """Computing time of the fastest run, so that a busy machine counts little."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_quantizers(kind):
    """Wanted: at least as fast as the `gguf` package."""
    print()
    ours, theirs = {"Q8_0": quantize.quantize_q8_0, "Q4_0": quantize.quantize_q4_0}[kind], gguf.GGMLQuantizationType[kind]
    for shape in SHAPES:
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        we, they = seconds(lambda x=x: ours(x)), seconds(lambda x=x: gguf.quants.quantize(x, theirs))
        say(f"{kind} of {shape[0]} x {shape[1]}: {we * 1000:.1f} ms, gguf {they * 1000:.1f} ms, {they / we:.2f} times as fast, wanted 1")


def test_quality_by_type(tmp_path):
    """The tutor in every type on the held-out text, with and without an importance matrix, and how long all of it takes."""
    source, text, began = models.gguf_path("tutor"), TUTOR / "holdout.md", time.perf_counter()
    prose = tmp_path / "prose.md"
    pieces = [path.read_text(encoding="utf-8") for path in sorted((TUTOR / "prose").glob("*_2.md"))[:3]]
    prose.write_text("\n\n".join(pieces), encoding="utf-8")
    base, matrix = tools.logits(source, text, tmp_path / "base.kld"), tools.imatrix(source, prose, tmp_path / "imatrix.gguf")
    files = {kind: tools.quantize(source, tmp_path / f"{kind}.gguf", kind, matrix if kind == "IQ3_XXS" else None) for kind in tools.KINDS}
    files["Q2_K+imatrix"] = tools.quantize(source, tmp_path / "Q2_K+.gguf", "Q2_K", matrix)
    rows = [(kind, path, tools.perplexity(path, text, base)) for kind, path in files.items()]
    print()
    for kind, path, q in rows:
        bits = gguf_file.read(path).bits_per_weight
        say(
            f"{kind:<13}{path.stat().st_size:>10,} bytes {bits:6.2f} bits  PPL {q.perplexity:9.2f} ± {q.perplexity_error:7.2f}  "
            f"KLD {q.kl:.4f} ± {q.kl_error:.4f}  same top {q.same_top:6.1%}"
        )
    say(f"base PPL {rows[0][2].base_perplexity:.2f}, {rows[0][2].tokens} tokens scored, all in {time.perf_counter() - began:.0f} s")
