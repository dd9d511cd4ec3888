"""Quantization by hand against what `llama-quantize` writes and what the `gguf` package reads: to the bit."""

from __future__ import annotations

from fractions import Fraction

import gguf
import numpy as np
import pytest

from servinglab import models
from servinglab.errors import SettingError
from servinglab.models import convert, gguf_file, quantize, speed, tools
from servinglab.models.shapes import find_shape
from servinglab.paths import TUTOR

QUANTIZE = {"Q8_0": quantize.quantize_q8_0, "Q4_0": quantize.quantize_q4_0}
DEQUANTIZE = {
    "Q8_0": quantize.dequantize_q8_0,
    "Q4_0": quantize.dequantize_q4_0,
    "Q4_K": quantize.dequantize_q4_k,
    "Q6_K": quantize.dequantize_q6_k,
}
LAYOUT = {"Q8_0": quantize.Q8_0, "Q4_0": quantize.Q4_0, "Q4_K": quantize.Q4_K, "Q6_K": quantize.Q6_K}
SPEED_SHAPES = set(find_shape("speed").matrices().values())
EMBEDDING = "token_embd.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The tutor as `llama-quantize` writes it, by type."""
    folder = tmp_path_factory.mktemp("양자화")
    kinds = ("Q8_0", "Q4_0", "Q4_K_M")
    return {kind: gguf_file.read(tools.quantize(models.gguf_path("tutor"), folder / f"{kind}.gguf", kind)) for kind in kinds}


@pytest.fixture(scope="module")
def source():
    return gguf_file.read(models.gguf_path("tutor"))


def floats(file, name):
    """A tensor as float32 (rows, columns), whether it is F16 or F32."""
    (tensor,) = [tensor for tensor in file.tensors if tensor.name == name]
    return file.blocks(tensor).view({"F16": np.float16, "F32": np.float32}[tensor.kind]).astype(np.float32)


def same_bits(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    return np.array_equal(np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8))


# --- against llama-quantize -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", QUANTIZE)
def test_the_whole_tutor_is_what_llama_quantize_writes(kind, made, source):
    ours = [tensor for tensor in made[kind].tensors if tensor.kind == kind]
    assert len(ours) == sum(tensor.kind == "F16" for tensor in source.tensors) - (kind == "Q4_0")
    for tensor in ours:
        assert same_bits(QUANTIZE[kind](floats(source, tensor.name)), made[kind].blocks(tensor)), tensor.name


def test_a_q4_0_file_keeps_the_embedding_in_six_bits_and_the_norms_whole(made):
    """The tutor's embedding is also its output (tied), which `llama-quantize` spares."""
    kinds = {tensor.name: tensor.kind for tensor in made["Q4_0"].tensors}
    assert kinds.pop(EMBEDDING) == "Q6_K"
    norms = {name: kind for name, kind in kinds.items() if "norm" in name}
    assert set(norms.values()) == {"F32"}
    assert {kind for name, kind in kinds.items() if name not in norms} == {"Q4_0"}


def awkward(rows, columns, seed):
    """Random weights with rows that round at the edge: zeros, ±0, ties of size and of rounding, subnormals, one outlier."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))
    x[0] = 0
    x[1] = -0.0
    x[2] = np.where(rng.random(columns) < 0.5, 1, -1)
    x[3] = rng.integers(-254, 255, columns) / np.float32(2)
    x[3, ::32] = 127
    x[4] = rng.integers(-16, 17, columns) / np.float32(2)
    x[4, ::32] = -8
    x[5] *= np.float32(1e-30)
    x[6] *= np.float32(2e-6)
    x[7, ::32] = 40
    x[8] = np.float32(0.49999997)
    x[8, ::32] = 127
    x[9, 1::2] = -x[9, ::2]
    x[10] *= np.float32(1e5)
    return x


@pytest.fixture(scope="module")
def matrices(tmp_path_factory):
    """A file with one random matrix of each of the speed model's shapes, in F32 and F16, and what is made of it."""
    folder = tmp_path_factory.mktemp("무작위")
    out = {}
    for name, dtype in (("F32", np.float32), ("F16", np.float16)):
        with convert.new_file(folder / f"{name}.gguf") as part:
            writer = gguf.GGUFWriter(part, "llama")
            convert.write_header(writer, speed.config(find_shape("speed")), "random", gguf.LlamaFileType.ALL_F32)
            convert.write_tokenizer(writer, TUTOR)
            for i, shape in enumerate(sorted(SPEED_SHAPES)):
                writer.add_tensor(f"blk.{i}.ffn_up.weight", awkward(*shape, seed=i).astype(dtype))
            convert.finish(writer)
        file = folder / f"{name}.gguf"
        out[name] = gguf_file.read(file), {
            kind: gguf_file.read(tools.quantize(file, folder / f"{name}-{kind}.gguf", kind)) for kind in QUANTIZE
        }
    return out


@pytest.mark.parametrize("kind", QUANTIZE)
@pytest.mark.parametrize("precision", ["F32", "F16"])
def test_every_shape_of_the_speed_model(kind, precision, matrices):
    source, results = matrices[precision]
    tensors = results[kind].tensors
    assert {tensor.shape for tensor in tensors} == SPEED_SHAPES
    for tensor in tensors:
        assert tensor.kind == kind
        assert same_bits(QUANTIZE[kind](floats(source, tensor.name)), results[kind].blocks(tensor)), tensor.name


def test_one_rounding_instead_of_two():
    """The fused way against exact fractions; on a grid the two ways differ often enough to be told apart."""
    rng = np.random.default_rng(1)
    x = rng.integers(-48, 49, (16, 256)).astype(np.float32) * rng.random((16, 1), dtype=np.float32)
    fused, plain = quantize.quantize_q4_0(x, fused=True), quantize.quantize_q4_0(x, fused=False)
    assert not np.array_equal(fused, plain)
    blocks = fused.view(quantize.Q4_0).reshape(-1)
    for block, weights in zip(blocks, x.reshape(-1, 32), strict=True):
        far = weights[np.abs(weights).argmax()]
        inverse = np.float32(1) / (far / np.float32(-8))
        for i, weight in enumerate(weights):
            exact = Fraction(float(weight)) * Fraction(float(inverse)) + Fraction(17, 2)
            step = min(15, int(nearest_float32(exact)))
            stored = block["q"][i] & 15 if i < 16 else block["q"][i - 16] >> 4
            assert stored == step


def nearest_float32(exact):
    """The float32 nearest to a positive fraction, of two equally near the even one."""
    near = np.float32(float(exact))
    around = [np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(100))]
    return min(around, key=lambda value: (abs(Fraction(float(value)) - exact), int(value.view(np.uint32)) & 1))


# --- against the gguf package -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DEQUANTIZE)
def test_what_llama_quantize_wrote_reads_as_gguf_reads_it(kind, made):
    file = made[{"Q4_K": "Q4_K_M", "Q6_K": "Q4_K_M"}.get(kind, kind)]
    tensors = [tensor for tensor in file.tensors if tensor.kind == kind]
    assert tensors
    for tensor in tensors:
        blocks = file.blocks(tensor)
        weights = DEQUANTIZE[kind](blocks)
        assert weights.shape == tensor.shape
        assert same_bits(weights, gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])), tensor.name


@pytest.mark.parametrize("kind", DEQUANTIZE)
@pytest.mark.parametrize("seed", range(5))
def test_random_blocks_read_as_gguf_reads_them(kind, seed):
    """Every bit random, but for scales that are no numbers."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (24, 5 * LAYOUT[kind].itemsize), dtype=np.uint8)
    for name in {"d", "dmin"} & set(LAYOUT[kind].names):
        scales = blocks.view(LAYOUT[kind])[name]
        scales[~np.isfinite(scales)] = -0.0
    assert same_bits(DEQUANTIZE[kind](blocks), gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]))


@pytest.mark.parametrize("kind", QUANTIZE)
def test_there_and_back_stays_within_half_a_step(kind):
    x = np.random.default_rng(7).standard_normal((64, 256), dtype=np.float32)
    step = np.abs(x.reshape(64, -1, 32)).max(axis=-1, keepdims=True) / {"Q8_0": 127, "Q4_0": 8}[kind]
    back = DEQUANTIZE[kind](QUANTIZE[kind](x))
    off = np.abs(back - x).reshape(64, -1, 32) / step
    # Q4_0 has no +8: a weight as large as the farthest one but of the other sign is a whole step off.
    assert off.max() < {"Q8_0": 0.57, "Q4_0": 1.01}[kind] and np.median(off) < 0.3


# --- what cannot be quantized -----------------------------------------------------------------------------------------

GOOD = np.ones((2, 64), np.float32)
BAD = {
    "no array": [[1.0] * 32],
    "float64": GOOD.astype(np.float64),
    "float16": GOOD.astype(np.float16),
    "a vector": GOOD[0],
    "three axes": GOOD[None],
    "33 columns": np.ones((2, 33), np.float32),
    "nothing": GOOD[:0],
    "NaN": np.where(np.arange(64) == 40, np.float32(np.nan), GOOD),
    "infinity": np.where(np.arange(64) == 40, np.float32(np.inf), GOOD),
    "minus infinity": np.where(np.arange(64) == 40, np.float32(-np.inf), GOOD),
    "too large for a scale of 16 bits": GOOD * np.float32(1e8),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", QUANTIZE)
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_what_cannot_be_quantized_is_told(kind, value):
    with pytest.raises(SettingError) as error:
        QUANTIZE[kind](value)
    assert error.value.why and error.value.todo


def test_the_block_is_named():
    x = np.ones((300, 512), np.float32)
    x[270, 100] = np.nan
    with pytest.raises(SettingError, match="270행 3번 블록"):
        quantize.quantize_q4_0(x)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", DEQUANTIZE)
def test_what_are_no_blocks_is_told(kind):
    size = LAYOUT[kind].itemsize
    whole = np.zeros((2, 2 * size), np.uint8)
    DEQUANTIZE[kind](whole)
    infinite = whole.copy()
    infinite.view(LAYOUT[kind])["d"][1, 1] = np.inf
    for bad in (whole.astype(np.int8), whole[:, :-1], whole[0], whole[:0], bytes(size), infinite):
        with pytest.raises(SettingError) as error:
            DEQUANTIZE[kind](bad)
        assert error.value.why and error.value.todo
