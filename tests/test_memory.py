"""The hardware calculator: its two lists, its arithmetic by hand and against `llama-server`, its verdicts, and bad input."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from servinglab import engines, models, programs
from servinglab.errors import ModelFileError, SettingError
from servinglab.models import gguf_file, memory, mixes, speed, tools
from servinglab.models.memory import (
    GIB,
    bits_per_weight,
    bytes_per_token,
    judge,
    kv_bytes_per_token,
    limits,
    machines,
    need,
    shape_of,
    shapes,
    weight_bytes,
)
from servinglab.models.shapes import Shape
from servinglab.paths import TUTOR

MIB = 2**20
LISTS = {"hardware.yaml": machines, "models.yaml": shapes}


# --- the lists, as shipped --------------------------------------------------------------------------------------------


def test_machines_are_those_that_the_lesson_needs():
    known = machines()
    assert len(known) >= 12
    assert {machine.backend for machine in known.values()} == {"cpu", "cuda", "metal"}
    names = " ".join(machine.name for machine in known.values())
    for word in ("8 GB", "16 GB", "Pascal", "Volta", "T4", "Ampere", "Ada", "Hopper", "Blackwell", "MacBook"):
        assert word in names, word


@pytest.mark.parametrize("machine", machines().values(), ids=machines())
def test_machine_says_where_its_figures_stand(machine):
    assert machine.source.name and machine.source.url.startswith("https://") and machine.date.year >= 2026
    assert 0 < machine.usable < machine.memory * GIB
    assert (machine.compute_capability is not None) == (machine.backend == "cuda")


@pytest.mark.parametrize("name", LISTS)
def test_no_id_stands_twice(name):
    """A second entry of the same id would hide the first."""
    text = (memory.DATA / name).read_text(encoding="utf-8")
    ids = re.findall(r"^  - id: (\S+)$", text, re.MULTILINE)
    assert sorted(ids) == sorted(LISTS[name]())


@pytest.mark.parametrize("shape", shapes().values(), ids=shapes())
def test_parameters_follow_from_the_shape(shape):
    """To the last weight: every matrix, norm and bias that `matrices` and `vectors` name."""
    assert sum(rows * columns for rows, columns in shape.matrices().values()) + sum(shape.vectors().values()) == shape.parameters


@pytest.mark.parametrize("shape", shapes().values(), ids=shapes())
def test_most_parameters_follow_from_the_figures_by_hand(shape):
    """Embeddings (once or twice), Q and O, K and V, the three matrices of each feed-forward; norms are too small to count."""
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    layer = 2 * shape.hidden * (queries + keys) + 3 * shape.hidden * shape.feed_forward * shape.experts
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    assert embeddings + shape.layers * layer == pytest.approx(shape.parameters, rel=0.02)


def test_the_models_that_the_lessons_need_are_listed_and_their_figures_were_looked_up():
    wanted = ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "llama-3.2-1b", "llama-3.1-8b", "gemma-3-1b", "gemma-3-4b")
    for name in (*wanted, "gpt-oss-20b"):
        assert shapes()[name].source.checked, name
    assert [shape.id for shape in shapes().values() if shape.memory_only] == ["gpt-oss-20b"]


@pytest.mark.parametrize("shape", shapes().values(), ids=shapes())
def test_shape_of_others_says_where_it_stands(shape):
    assert shape.id in models.NAMES or shape.source is not None
    assert (shape.window is None) == (shape.full_layers is None)


# --- the arithmetic, by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected"), [
    ("tutor", 2048),            # 2 * 4 layers * 2 heads * 64 * 2 bytes
    ("speed", 40_960),          # 2 * 20 * 8 * 64 * 2
    ("llama-3.2-1b", 32_768),   # 2 * 16 * 8 * 64 * 2
    ("llama-3.1-8b", 131_072),  # 2 * 32 * 8 * 128 * 2: 128 KiB
    ("llama-3.1-70b", 327_680), # 2 * 80 * 8 * 128 * 2
    ("qwen3-8b", 147_456),      # 2 * 36 * 8 * 128 * 2: 144 KiB
])
def test_kv_bytes_per_token(name, expected):
    assert kv_bytes_per_token(name) == kv_bytes_per_token(shapes()[name]) == expected
    assert kv_bytes_per_token(name, 1.0) == expected / 2
    assert need(name, 16, 1024, 3).kv == need(name, 16, 1000, 3).kv == expected * 3072, "in steps of 256 tokens"


def test_weights_at_several_bits():
    assert weight_bytes("speed", 8.5) == 509_670_912 * 34 / 32
    assert weight_bytes("llama-3.1-8b", 16) == 8_030_261_248 * 2
    assert weight_bytes("llama-3.1-8b", 4.5) == 8_030_261_248 * 18 / 32


def test_layers_with_a_sliding_window_keep_no_more_than_the_window():
    """Gemma 3 4B: 2 * 4 heads * 256 * 2 bytes = 4096 bytes a layer and token; 5 layers keep all, 29 their 1024 and a batch of 512."""
    assert need("gemma-3-4b", 16, 8192, 1).kv == 4096 * (5 * 8192 + 29 * 1536)
    assert need("gemma-3-4b", 16, 512, 2).kv == 4096 * 34 * 512 * 2


def test_total_is_the_sum():
    found = need("qwen3-4b", 4.5, 4096, 2)
    assert found.total == found.weights + found.kv + found.buffers and min(found.weights, found.kv, found.buffers) > 0


@pytest.mark.parametrize(("kv", "bytes_a_value"), [("f16", 2), ("q8_0", 34 / 32), ("q4_0", 18 / 32)])
def test_a_smaller_kv_cache(kv, bytes_a_value):
    """Llama 3.1 8B: 2 * 32 layers * 8 heads * 128 values a token."""
    assert need("llama-3.1-8b", 16, 4096, 2, kv).kv == 2 * 32 * 8 * 128 * bytes_a_value * 4096 * 2


def test_a_mixture_of_experts_keeps_all_and_reads_few():
    """gpt-oss 20B: in each of 24 layers 32 experts of 3 * 2880 * 2880 in MXFP4 (17 bytes for 32 weights), of which four are read."""
    experts = 24 * 32 * 3 * 2880 * 2880
    table = 201_088 * 2880
    rest = sum(rows * columns for name, (rows, columns) in shapes()["gpt-oss-20b"].matrices().items() if "exps" not in name)
    small = 4 * sum(shapes()["gpt-oss-20b"].vectors().values())
    assert weight_bytes("gpt-oss-20b", "MXFP4_MOE") == experts * 17 / 32 + rest * 34 / 32 + small
    read = experts / 8 * 17 / 32 + (rest - table) * 34 / 32 + small
    assert bytes_per_token("gpt-oss-20b", "MXFP4_MOE") == pytest.approx(read)
    assert bytes_per_token("gpt-oss-20b", 16) == 2 * (20_914_757_184 - experts * 7 / 8 - table)
    assert need("gpt-oss-20b", 16, 8192, 1).kv == 2 * 8 * 64 * 2 * (12 * 8192 + 12 * 768), "a window of 128 and a batch of 512"


# --- the arithmetic, against what llama-server says -------------------------------------------------------------------


def logged(log: str, pattern: str) -> float:
    """The sum of what is logged in MiB, in bytes."""
    found = re.findall(pattern + r" += +([\d.]+) MiB", log)
    assert found, f"llama-server no longer logs {pattern}"
    return sum(map(float, found)) * MIB


def started(model, bits, slots, context, shape, *options) -> None:
    """Weights and KV cache within 1 %; the error of the buffers' estimate is printed and lies within 10 %."""
    options = ("-lv", "4", "-t", "1", "--no-warmup", "--device", "none", *options)
    with engines.start(model=model, slots=slots, context=context, options=options) as server:
        log = server.log.read_text(encoding="utf-8", errors="replace")
    kv = next((option for option in options if option in memory.KV_TYPES), "f16")
    computed = need(shape, bits, context, slots, kv)
    assert computed.kv == pytest.approx(logged(log, "KV buffer size"), rel=0.01)
    assert computed.weights == pytest.approx(logged(log, "CPU(?:_Mapped)? model buffer size"), rel=0.01)
    buffers = logged(log, "(?:compute|output) buffer size")
    print(f"buffers of {shape.id}, {slots} x {context}: estimated {computed.buffers / buffers - 1:+.1%}")
    assert computed.buffers == pytest.approx(buffers, rel=0.1)


@pytest.mark.parametrize(("model", "bits"), [("tutor", 16), ("tutor", "F16"), ("speed", 8.5), ("speed", "Q8_0")])
@pytest.mark.parametrize(("slots", "context"), [(4, 512), (1, 2000)])
def test_llama_server_takes_what_is_computed(model, bits, slots, context):
    started(model, bits, slots, context, shapes()[model])


@pytest.mark.parametrize("kv", ["q8_0", "q4_0"])
def test_llama_server_takes_what_is_computed_for_a_smaller_kv_cache(kv):
    started("tutor", "F16", 2, 1024, shapes()["tutor"], "-ctk", kv, "-ctv", kv)


@pytest.mark.parametrize(("name", "changes", "kind"), [
    ("gemma-3-1b", {"layers": 6, "full_layers": 1, "vocabulary": 8192}, "Q8_0"),
    ("qwen3-0.6b", {"layers": 4}, "F16"),
    ("llama-3.2-1b", {"layers": 3, "vocabulary": 8192}, "Q8_0"),
])
def test_llama_server_takes_what_is_computed_for_a_part_of_a_real_model(name, changes, kind, tmp_path):
    """Random weights in the real widths, with fewer layers: a layer with a window, a large vocabulary, a wide feed-forward."""
    shape = shapes()[name].model_copy(update=changes)
    shape = shape.model_copy(update={"parameters": sum(r * c for r, c in shape.matrices().values())})
    speed.write(tmp_path / "a.gguf", shape, kind)
    started(str(tmp_path / "a.gguf"), kind, 2, 2048, shape)


# --- types by name, against what llama-quantize makes -----------------------------------------------------------------

TALL = Shape(
    id="tall", name="tall", architecture="qwen3", parameters=1, layers=32, hidden=256, heads=8, kv_heads=2, head_size=64,
    feed_forward=768, vocabulary=8192, tied=False, context=2048,
)
"""Enough layers for every rule that counts them, four query heads to a KV head, an output matrix of its own."""

NARROW = shapes()["gemma-3-1b"].model_copy(update={"vocabulary": 4096, "layers": 6, "full_layers": 1})
"""Rows of 1152 weights, which K-quants cannot have."""


@pytest.fixture(scope="module", params=[TALL, NARROW, shapes()["tutor"]], ids=lambda shape: shape.id)
def random_model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("mixes") / "f16.gguf"
    speed.write(path, request.param, "F16")
    yield request.param, path
    path.unlink()


def dry_run(path, kind: str) -> tuple[dict[str, str], float]:
    """What `llama-quantize` would make: the type of each tensor that changes, and MiB in all."""
    done = programs.run("llama-quantize", "--dry-run", path, kind, "1", doing="재 보기")
    types = re.findall(r"\] +(\S+) +- \[.*-> +[\d.]+ MiB \((\w+)\)", done.all)
    return {name: made.upper() for name, made in types}, float(re.findall(r"quant size += +([\d.]+) MiB", done.all)[-1])


@pytest.mark.parametrize("kind", [kind for kind in mixes.MIXES if kind not in ("F16", "IQ3_XXS")])
def test_every_tensor_gets_the_type_that_llama_quantize_gives_it(kind, random_model):
    shape, path = random_model
    types, size = dry_run(path, kind)
    assert types == mixes.tensor_types(shape, kind)
    assert mixes.file_bytes(shape, kind) / MIB == pytest.approx(size, abs=0.006)


def test_what_does_not_hang_on_the_importance_matrix_gets_its_type_too(random_model):
    """A dry run has no matrix: it gives these two roles more bits than a real run with one."""
    shape, path = random_model
    types, _ = dry_run(path, "IQ3_XXS")
    same = {name: kind for name, kind in types.items() if "attn_v" not in name and "ffn_down" not in name}
    assert same.items() <= mixes.tensor_types(shape, "IQ3_XXS").items() and len(same) > len(types) / 2


@pytest.mark.parametrize("kind", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "IQ4_XS"])
def test_size_of_the_tutors_file(kind, tmp_path):
    """The real file, metadata and tokenizer taken off, within 1 %."""
    source = models.gguf_path("tutor")
    made = tools.quantize(source, tmp_path / f"{kind}.gguf", kind)
    front = source.stat().st_size - weight_bytes("tutor", "F16")
    assert made.stat().st_size - front == pytest.approx(weight_bytes("tutor", kind), rel=0.01)


def test_size_of_a_file_that_needs_an_importance_matrix(tmp_path):
    source, text = models.gguf_path("tutor"), tmp_path / "글.txt"
    text.write_text((TUTOR / "holdout.md").read_text(encoding="utf-8")[:4000], encoding="utf-8")
    matrix = tools.imatrix(source, text, tmp_path / "imatrix.gguf")
    made = gguf_file.read(tools.quantize(source, tmp_path / "a.gguf", "IQ3_XXS", matrix))
    types = {tensor.name: tensor.kind for tensor in made.tensors if len(tensor.shape) == 2}
    assert types == mixes.tensor_types(shapes()["tutor"], "IQ3_XXS")


# GiB of Llama 3 8B, which has the shape of 3.1 8B, as `llama-quantize --help` prints them.
PRINTED = {"Q4_0": 4.34, "Q4_1": 4.78, "Q5_0": 5.21, "Q5_1": 5.65, "Q2_K": 2.96, "Q3_K_S": 3.41, "Q3_K_M": 3.74, "Q3_K_L": 4.03,
           "Q4_K_S": 4.37, "Q4_K_M": 4.58, "Q5_K_S": 5.21, "Q5_K_M": 5.33, "Q6_K": 6.14, "Q8_0": 7.96}


@pytest.mark.parametrize(("kind", "printed"), PRINTED.items(), ids=PRINTED)
def test_size_of_llama_8b_is_the_published_one(kind, printed):
    assert weight_bytes("llama-3.1-8b", kind) / GIB == pytest.approx(printed, abs=0.016)


def test_bits_per_weight_are_the_models_own():
    """Q4_K_M is 4.89 bits for Llama 3 8B (llama.cpp's quantize README). A small model's large embedding table takes more."""
    assert bits_per_weight("llama-3.1-8b", "Q4_K_M") == pytest.approx(4.89, abs=0.005)
    assert bits_per_weight("qwen3-0.6b", "Q4_K_M") == pytest.approx(5.24, abs=0.005)
    assert mixes.block_bits("Q4_0") == 4.5 and mixes.block_bits("Q6_K") == 6.5625 and mixes.block_bits("MXFP4") == 4.25


def test_more_bits_take_more_room():
    order = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
    for shape in shapes():
        sizes = [weight_bytes(shape, kind) for kind in order]
        if shapes()[shape].hidden % 256 == 0:
            assert sizes == sorted(sizes, reverse=True), shape


# --- shapes from files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.NAMES)
def test_shape_of_our_own_files_is_the_listed_one(name):
    found = shape_of(models.gguf_path(name))
    listed = shapes()[name]
    assert found == listed.model_copy(update={"id": found.id, "name": found.name})


def write_gguf(path, **wrong) -> None:
    """A tiny model whose metadata can be made wrong or, with None, left out."""
    writer = gguf.GGUFWriter(path, "llama")
    values = {"context_length": 64, "embedding_length": 32, "block_count": 1, "feed_forward_length": 64, "head_count": 4} | wrong
    for name, value in values.items():
        if value is not None:
            getattr(writer, f"add_{name}")(value)
    writer.add_tensor("token_embd.weight", np.zeros((100, 32), np.float32))
    if wrong.get("head_count_kv") is None:
        writer.add_tensor("output.weight", np.zeros((100, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_what_a_file_may_leave_out(tmp_path):
    """Without KV heads every head has its own; without a head size it is the width divided by the heads."""
    write_gguf(tmp_path / "작은 모델.gguf")
    shape = shape_of(tmp_path / "작은 모델.gguf")
    assert (shape.kv_heads, shape.head_size, shape.vocabulary, shape.tied, shape.parameters) == (4, 8, 100, False, 6400)
    assert shape.name == "작은 모델"


def test_head_size_of_its_own_is_read(tmp_path):
    """Qwen3's heads are wider than the model's width divided by their number."""
    write_gguf(tmp_path / "a.gguf", key_length=128, head_count_kv=2)
    shape = shape_of(tmp_path / "a.gguf")
    assert (shape.kv_heads, shape.head_size, shape.tied) == (2, 128, True)


@pytest.mark.parametrize("wrong", [{"block_count": None}, {"head_count": None}, {"head_count_kv": [1, 2, 4]}, {"feed_forward_length": 0}])
def test_file_that_does_not_tell_its_shape(wrong, tmp_path):
    write_gguf(tmp_path / "a.gguf", **wrong)
    with pytest.raises(ModelFileError, match="모델의 모양을 알 수 없습니다"):
        shape_of(tmp_path / "a.gguf")


def test_damaged_file(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(ModelFileError):
        shape_of(tmp_path / "a.gguf")


# --- verdicts, worked by hand -----------------------------------------------------------------------------------------

# Below, GiB: weights + KV cache + buffers, against what is usable. Buffers: 2048 * (3 * feed-forward + 4 * hidden) bytes on the way,
# 1024 for each token of a user's context, 4 for each user and token of the vocabulary.
WORKED = {
    # 4.022e9 * 4.5 / 8 = 2.11, 147456 * 4096 = 0.56, 2048 * 39424 + 1024 * 4096 + 4 * 151936 = 0.08: 2.75 of 4.
    # 21.3e9 / 2.263e9 = 9.4 tokens/s.
    "4B at 4.5 bits on the small office PC": (("office-8", "qwen3-4b", "llama.cpp", 4.5), [], "", 2.75, 9.4),
    # 8.030e9 * 2 = 14.96, 131072 * 4096 = 0.50, 2048 * 59392 + 0.00 = 0.12: 15.58 of 11, short by 4.58. At 8.5 bits 7.95: 8.57.
    "8B in 16 bits on the larger office PC": (
        ("office-16", "llama-3.1-8b"), ["메모리가 4.6 GiB 모자랍니다"], "가중치 16비트 → 8.5비트", 15.58, None,
    ),
    # 4.21 + 0.50 + 0.12 = 4.82 of 4; with 1024 tokens still 4.45. Qwen3 4B (2.75) is half of 8B; the next machine has 2.5 times 4.
    "8B at 4.5 bits on the small office PC": (
        ("office-8", "llama-3.1-8b", "llama.cpp", 4.5), ["메모리가 0.8 GiB 모자랍니다"], "모델 Llama 3.1 8B → Qwen3 4B", 4.82, None,
    ),
    # 4.022e9 * 2 = 7.49, 0.56, 0.08: 8.13 of 11: memory is enough.
    "vLLM for GPUs without a GPU": (("office-16", "qwen3-4b", "vllm"), ["NVIDIA GPU가 필요"], "엔진 vLLM → llama.cpp", 8.13, None),
    "vLLM on Pascal": (("p40", "qwen3-4b", "vllm"), ["7.5 이상.*6.1입니다"], "엔진 vLLM → llama.cpp", 8.13, None),
    "vLLM on Volta": (("v100", "qwen3-4b", "vllm"), ["7.5 이상.*7.0입니다"], "엔진 vLLM → llama.cpp", 8.13, None),
    # 15.58 of 10; llama.cpp runs on Pascal, and at 8.5 bits 8.57 fits: two settings rather than another card.
    "two limits, two settings": (
        ("gtx-1080-ti", "llama-3.1-8b", "vllm"), ["7.5 이상.*6.1입니다", "메모리가 5.6 GiB 모자랍니다"],
        "엔진 vLLM → llama.cpp, 가중치 16비트 → 8.5비트", 15.58, None,
    ),
    # 15.58 of 14.5. Turing itself is new enough.
    "8B in 16 bits on a T4": (("t4", "llama-3.1-8b", "vllm"), ["메모리가 1.1 GiB 모자랍니다"], "가중치 16비트 → 8.5비트", 15.58, None),
    # 8.191e9 * 2 = 15.26, 147456 * 32768 * 4 = 18.00, 2048 * 53248 + 1024 * 32768 = 0.14: 33.39 of 23. For KV cache and masks 7.64
    # are left, 590848 bytes a token of four: 13880, in steps of 256 13824 (factor 2.4). 4.5 bits would do (22.42, 3.6), one user too (4).
    "long context for four": (
        ("rtx-4090", "qwen3-8b", "vllm", 16, 32768, 4), ["메모리가 10.4 GiB 모자랍니다"], "컨텍스트 32,768토큰 → 13,824토큰", 33.39, None,
    ),
    # 14.96 + 64 * 0.125 + 0.11 + 64 * 4 * 128256 = 23.10 of 22. (22 - 15.07) / 0.1255 = 55.2 users.
    "many users": (
        ("l4", "llama-3.1-8b", "vllm", 16, 1024, 64), ["메모리가 1.1 GiB 모자랍니다"], "사용자 64명 → 55명", 23.10, None,
    ),
    # 0.596e9 * 2 = 1.11, 114688 * 65536 = 7.00, 2048 * 13312 + 1024 * 65536 = 0.09: 8.20 of 11, but the model ends at 32768.
    "longer than the model": (
        ("office-16", "qwen3-0.6b", "llama.cpp", 16, 65536), ["32,768토큰까지"], "컨텍스트 65,536토큰 → 32,768토큰", 8.20, None,
    ),
    # 70.55e9 * 2 = 131.42, 327680 * 4096 = 1.25, 2048 * 118784 = 0.23: 132.90 of 78. At 8.5 bits 69.82: 71.30.
    "70B in 16 bits on one A100": (
        ("a100-80", "llama-3.1-70b", "vllm"), ["메모리가 54.9 GiB 모자랍니다"], "가중치 16비트 → 8.5비트", 132.90, None,
    ),
    # 132.90 of 138. One row of the input table is read: (70.55e9 - 128256 * 8192) * 2 = 139.0e9 bytes; 4800e9 / 139.0e9 = 34.5.
    "70B in 16 bits on one H200": (("h200", "llama-3.1-70b", "vllm"), [], "", 132.90, 34.5),
    # 36.96 + 1.25 + 0.23 = 38.44 of 23. No setting helps; the next card with room has 78 / 23 = 3.39 times as much, the next smaller
    # model is 70.55 / 20.91 = 3.37 times smaller (at 4.5 bits 10.96 + 0.11 + 0.09).
    "70B at 4.5 bits on one RTX 4090": (
        ("rtx-4090", "llama-3.1-70b", "llama.cpp", 4.5), ["메모리가 15.4 GiB 모자랍니다"],
        "모델 Llama 3.1 70B → gpt-oss 20B (전문가 혼합)", 38.44, None,
    ),
    # 3.880e9 * 2 = 7.23, 4096 * (5 * 8192 + 29 * 1536) = 0.33, 2048 * 40960 + 1024 * (8192 + 1536) = 0.09: 7.64 of 11.8.
    # 100e9 / 7.760e9 = 12.9.
    "Gemma 3 4B on a MacBook": (("macbook-air-m2", "gemma-3-4b", "llama.cpp", 16, 8192), [], "", 7.64, 12.9),
    # 69.82 + 1.25 + 0.23 = 71.30 of 107.5: large enough, but no CUDA.
    "vLLM on a Mac": (
        ("macbook-pro-m4-max", "llama-3.1-70b", "vllm", 8.5), ["NVIDIA GPU가 필요"], "엔진 vLLM → llama.cpp", 71.30, None,
    ),
    # Qwen3 4B as Q4_K_M: 2.32, 147456 * 4096 * 4 = 2.25, 0.08: 4.65 of 4. 2816 tokens: 2.32 + 1.55 + 0.08 = 3.95; 3072 are 4.09.
    "four users and a type by name": (
        ("office-8", "qwen3-4b", "llama.cpp", "Q4_K_M", 4096, 4), ["메모리가 0.7 GiB 모자랍니다"],
        "컨텍스트 4,096토큰 → 2,816토큰", 4.65, None,
    ),
    # gpt-oss 20B: 12.10e9 = 11.27, 2048 * 12 * (8192 + 768) * 4 = 0.82, 0.10: 12.19 of 11. Fewer bits of its type there are none, one
    # user or 1024 tokens still 11.4; the next machine has 14.5 / 11 = 1.3 times as much.
    "a mixture of experts on the larger office PC": (
        ("office-16", "gpt-oss-20b", "llama.cpp", "MXFP4_MOE", 8192, 4), ["메모리가 1.2 GiB 모자랍니다"],
        "장비 사무실 PC 16 GB → T4 16 GB (Turing)", 12.19, None,
    ),
    # Llama 3.1 8B: F16 14.96 + 131072 * 8192 * 4 = 4.00 + 0.12: 19.08 of 11. Q8_0 7.95 would make 12.08, Q6_K 6.14 10.27.
    "the advice names types too": (
        ("office-16", "llama-3.1-8b", "llama.cpp", "F16", 8192, 4), ["메모리가 8.1 GiB 모자랍니다"], "가중치 F16 → Q6_K", 19.08, None,
    ),
}


@pytest.mark.parametrize(("question", "stands_against", "change", "total", "speed"), WORKED.values(), ids=WORKED)
def test_worked_case(question, stands_against, change, total, speed):
    verdict = judge(*question)
    assert verdict.setup.need.total / GIB == pytest.approx(total, abs=0.006)
    assert len(verdict.limits) == len(stands_against), verdict
    for limit, pattern in zip(verdict.limits, stands_against, strict=True):
        assert re.search(pattern, limit), limit
    assert verdict.ok == (not stands_against) and verdict.change == change
    if speed is not None:
        assert verdict.setup.tokens_per_second == pytest.approx(speed, abs=0.05)


@pytest.mark.parametrize("engine", memory.ENGINES)
@pytest.mark.parametrize("machine", machines())
def test_every_no_names_a_change_that_lifts_it_and_no_part_of_which_would_do(machine, engine):
    for shape in shapes():
        for bits, context, users in ((16.0, 4096, 1), (8.5, 40_000, 8), (4.5, 2048, 200)):
            verdict = judge(machine, shape, engine, bits, context, users)
            if verdict.ok:
                assert verdict.better is None and verdict.setup.need.total <= verdict.setup.machine.usable
                continue
            assert verdict.better is not None and limits(verdict.better) == () and verdict.change, verdict
            changed = [field.name for field in fields(verdict.setup) if differs(verdict.setup, verdict.better, field.name)]
            for name in changed:
                assert limits(replace(verdict.better, **{name: getattr(verdict.setup, name)})), (name, verdict)


def differs(one: memory.Setup, other: memory.Setup, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def test_one_token_more_would_not_fit():
    """The advice is the most that fits: the next step of context, or one more user, is too much."""
    better = judge("rtx-4090", "qwen3-8b", "vllm", 16, 32768, 4).better
    assert limits(better) == () and limits(replace(better, context=better.context + 256))
    better = judge("l4", "llama-3.1-8b", "vllm", 16, 1024, 64).better
    assert limits(better) == () and limits(replace(better, users=better.users + 1))


def test_a_machine_and_a_shape_of_ones_own():
    shape = shape_of(models.gguf_path("tutor"))
    mine = machines()["office-8"].model_copy(update={"name": "내 PC", "memory": 4.1})
    assert judge(mine, shape, context=2048).ok
    assert not judge(mine, "qwen3-0.6b").ok


def test_where_nothing_known_would_do_the_verdict_says_so(monkeypatch):
    """With one tiny machine, one model and nothing to set there is no change to name."""
    office = machines()["office-8"].model_copy(update={"memory": 4.1})
    monkeypatch.setattr(memory, "machines", lambda: {"office-8": office})
    monkeypatch.setattr(memory, "shapes", lambda: {"qwen3-8b": shapes()["qwen3-8b"]})
    verdict = judge("office-8", "qwen3-8b")
    assert not verdict.ok and verdict.better is None and verdict.change == ""
    assert "바꿀 것: 목록에 있는 것으로는 되지 않습니다." in str(verdict)


def test_verdict_reads_as_korean():
    assert str(judge("office-8", "qwen3-4b", "llama.cpp", 4.5)).splitlines() == [
        "됩니다: 사무실 PC 8 GB / Qwen3 4B / llama.cpp",
        "  필요한 메모리 2.7 GiB, 쓸 수 있는 메모리 4.0 GiB",
        "  한 사람이 받는 속도는 빨라야 초당 9.4토큰",
    ]
    assert str(judge("p40", "qwen3-4b", "vllm")).splitlines() == [
        "안 됩니다: Tesla P40 24 GB (Pascal) / Qwen3 4B / vLLM",
        "  필요한 메모리 8.1 GiB, 쓸 수 있는 메모리 22.0 GiB",
        "  막는 것: vLLM에는 컴퓨트 캐퍼빌리티가 7.5 이상인 GPU가 필요한데, 이 GPU는 6.1입니다.",
        "  바꿀 것: 엔진 vLLM → llama.cpp",
    ]


# --- bad input --------------------------------------------------------------------------------------------------------

BAD = {
    "unknown machine": (("office-32", "qwen3-4b"), r"장비 이름입니다: 'office-32'(?s:.)*적으세요: office-8, "),
    "unknown shape": (("office-8", "qwen4"), r"모델 이름입니다: 'qwen4'(?s:.)*적으세요: (?s:.)*qwen3-4b"),
    "unknown engine": (("office-8", "qwen3-4b", "vLLM2"), r"엔진 이름입니다: 'vLLM2'(?s:.)*적으세요: llama.cpp, vllm"),
    "machine as a number": ((8, "qwen3-4b"), r"장비 이름입니다: 8(?s:.)*아는 이름"),
    "shape as a list": (("office-8", ["qwen3-4b"]), r"모델 이름입니다: (?s:.)*아는 이름"),
    "machine where the shape belongs": (("office-8", machines()["t4"]), r"모델 이름입니다: (?s:.)*아는 이름"),
    "negative context": (("office-8", "qwen3-4b", "llama.cpp", 16, -4096), r"context=-4096(?s:.)*1 이상의 정수"),
    "no context": (("office-8", "qwen3-4b", "llama.cpp", 16, 0), "context=0"),
    "half a token": (("office-8", "qwen3-4b", "llama.cpp", 16, 40.5), "context=40.5"),
    "context as text": (("office-8", "qwen3-4b", "llama.cpp", 16, "4096"), "context='4096'"),
    "no users": (("office-8", "qwen3-4b", "llama.cpp", 16, 4096, 0), "users=0"),
    "users as yes": (("office-8", "qwen3-4b", "llama.cpp", 16, 4096, True), "users=True"),
    "unknown type": (("office-8", "qwen3-4b", "llama.cpp", "Q4"), r"타입 이름입니다: 'Q4'(?s:.)*적으세요: F32, (?s:.)*Q4_K_M"),
    "type in small letters": (("office-8", "qwen3-4b", "llama.cpp", "q4_k_m"), r"타입 이름입니다: 'q4_k_m'(?s:.)*Q4_K_M"),
    "block type where a file's belongs": (("office-8", "qwen3-4b", "llama.cpp", "Q4_K"), r"타입 이름입니다: 'Q4_K'(?s:.)*아는 이름"),
    "bits as yes": (("office-8", "qwen3-4b", "llama.cpp", True), r"bits=True(?s:.)*1부터 32까지"),
    "endless context": (("office-8", "qwen3-4b", "llama.cpp", 16, 10**30), r"context=1000000(?s:.)*1,000,000,000 이하"),
    "context beyond numbers": (("office-8", "qwen3-4b", "llama.cpp", 16, math.inf), r"context=inf(?s:.)*1 이상의 정수"),
    "context that is no number": (("office-8", "qwen3-4b", "llama.cpp", 16, math.nan), "context=nan"),
    "all mankind": (("office-8", "qwen3-4b", "llama.cpp", 16, 4096, 8 * 10**9), r"users=8000000000(?s:.)*1,000,000,000 이하"),
    "unknown type of KV cache": (("office-8", "qwen3-4b", "llama.cpp", 16, 4096, 1, "q5"), r"KV 캐시 타입 이름입니다: 'q5'(?s:.)*f16, q8_0, q4_0"),
    "no bits": (("office-8", "qwen3-4b", "llama.cpp", 0), "bits=0"),
    "negative bits": (("office-8", "qwen3-4b", "llama.cpp", -4.5), "bits=-4.5"),
    "bits that are no number": (("office-8", "qwen3-4b", "llama.cpp", math.nan), "bits=nan"),
}


@pytest.mark.parametrize(("question", "pattern"), BAD.values(), ids=BAD)
def test_bad_question_is_told_in_korean(question, pattern):
    with pytest.raises(SettingError, match=pattern) as caught:
        judge(*question)
    assert re.search("[가-힣]", caught.value.what) and caught.value.why and caught.value.todo


@pytest.mark.parametrize("wrong", [
    lambda: need("qwen3-4b", 16, -1, 1),
    lambda: need(None, 16, 4096, 1),
    lambda: need("qwen3-4b", True, 4096, 1),
    lambda: weight_bytes("qwen3-4b", 0),
    lambda: mixes.block_bits("Q4_K_M"),
    lambda: memory.kv_bytes("qwen3-4b", 4096, 0),
    lambda: memory.buffer_bytes("qwen3-4b", 0, 1),
    lambda: weight_bytes(SimpleNamespace(parameters=1), 16),
    lambda: kv_bytes_per_token("qwen3-4b", -2.0),
    lambda: kv_bytes_per_token("qwen3-4b", "F16"),
    lambda: kv_bytes_per_token(36),
])
def test_bad_argument_of_the_arithmetic(wrong):
    with pytest.raises(SettingError):
        wrong()


MACHINE = (
    "machines:\n  - id: x\n    name: 엑스\n    backend: cpu\n    memory: 8\n    reserved: 4\n    bandwidth: 20\n"
    "    compute_capability: null\n    source: {name: 엑스, url: 'https://example.org', checked: false}\n    date: 2026-11-26\n"
)
FAULTS = {
    "tab": (MACHINE.replace("    memory", "\tmemory"), r"hardware\.yaml 파일 \d+번째 줄"),
    "memory as text": (MACHINE.replace("memory: 8", "memory: 여덟"), r"machines\.0\.memory(?s:.)*수여야"),
    "no memory": (MACHINE.replace("memory: 8", "memory: 0"), r"machines\.0\.memory(?s:.)*0보다 커야"),
    "more reserved than there is": (MACHINE.replace("reserved: 4", "reserved: 8"), r"machines\.0 (?s:.)*reserved가 memory보다"),
    "unknown field": (MACHINE + "    gpu: 없음\n", r"machines\.0\.gpu(?s:.)*모르는 이름"),
    "no source": (re.sub(r"    source: .*\n", "", MACHINE), r"machines\.0\.source(?s:.)*없습니다"),
    "unknown backend": (MACHINE.replace("cpu", "npu"), r"machines\.0\.backend"),
}


@pytest.mark.parametrize(("text", "pattern"), FAULTS.values(), ids=FAULTS)
def test_fault_in_the_list_names_file_and_field(text, pattern, tmp_path):
    (tmp_path / "hardware.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=pattern):
        machines(tmp_path / "hardware.yaml")


def test_a_whole_list_of_ones_own(tmp_path):
    (tmp_path / "hardware.yaml").write_text(MACHINE, encoding="utf-8")
    assert judge(machines(tmp_path / "hardware.yaml")["x"], "qwen3-0.6b").ok
