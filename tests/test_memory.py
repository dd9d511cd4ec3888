"""The hardware calculator: its two lists, its arithmetic by hand and against `llama-server`, its verdicts, and bad input."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from servinglab import engines, models
from servinglab.errors import ModelFileError, SettingError
from servinglab.models import memory, speed
from servinglab.models.memory import (
    GIB,
    judge,
    kv_bytes_per_token,
    limits,
    machines,
    need,
    shape_of,
    shapes,
    weight_bytes,
)

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
    """Embeddings (once or twice), Q and O, K and V, the three matrices of the feed-forward; norms are too small to count."""
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    layer = 2 * shape.hidden * queries + 2 * shape.hidden * keys + 3 * shape.hidden * shape.feed_forward
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    assert embeddings + shape.layers * layer == pytest.approx(shape.parameters, rel=0.02)


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
    assert need(name, 16, 1000, 3).kv == expected * 3000


def test_weights_at_several_bits():
    """speed.BYTES counts Q8_0 blocks of 34 bytes for 32 weights."""
    assert weight_bytes("speed", 8.5) == pytest.approx(speed.BYTES, rel=1e-3)
    assert weight_bytes("llama-3.1-8b", 16) == 8_030_261_248 * 2
    assert weight_bytes("llama-3.1-8b", 4.5) == 8_030_261_248 * 18 / 32


def test_layers_with_a_sliding_window_keep_no_more_than_the_window():
    """Gemma 3 4B: 2 * 4 heads * 256 * 2 bytes = 4096 bytes a layer and token; 5 layers keep all, 29 keep 1024."""
    assert need("gemma-3-4b", 16, 8192, 1).kv == 4096 * (5 * 8192 + 29 * 1024)
    assert need("gemma-3-4b", 16, 512, 2).kv == 4096 * 34 * 512 * 2


def test_total_is_the_sum():
    found = need("qwen3-4b", 4.5, 4096, 2)
    assert found.total == found.weights + found.kv + found.buffers and min(found.weights, found.kv, found.buffers) > 0


# --- the arithmetic, against what llama-server says -------------------------------------------------------------------


def logged(log: str, pattern: str) -> list[float]:
    found = re.search(pattern, log)
    assert found, f"llama-server no longer logs {pattern}"
    return [float(number) for number in found.groups()]


@pytest.mark.parametrize(("model", "bits"), [("tutor", 16), ("speed", 8.5)])
@pytest.mark.parametrize(("slots", "context"), [(4, 512), (1, 2048)])
def test_llama_server_takes_what_is_computed(model, bits, slots, context):
    """Weights and KV cache within 1 %; the estimate of the buffers within a factor."""
    with engines.start(model=model, slots=slots, context=context, options=("-lv", "4")) as server:
        log = server.log.read_text(encoding="utf-8", errors="replace")
    shape = shape_of(models.gguf_path(model))
    kv, cells, sequences = logged(log, r"llama_kv_cache: size = +([\d.]+) MiB \( *(\d+) cells, +\d+ layers, +(\d+)/")
    assert cells * sequences == slots * context
    assert kv_bytes_per_token(shape) * cells * sequences == pytest.approx(kv * MIB, rel=0.01)
    computed = need(shape, bits, context, slots)
    assert computed.kv == pytest.approx(kv * MIB, rel=0.01)
    (weights,) = logged(log, r"file size += ([\d.]+) MiB")
    assert computed.weights == pytest.approx(weights * MIB, rel=0.01)
    (buffers,) = logged(log, r"CPU compute buffer size = +([\d.]+) MiB")
    assert 0.5 < computed.buffers / (buffers * MIB) < 3


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


@pytest.mark.parametrize("wrong", [{"block_count": None}, {"head_count": None}, {"head_count_kv": [1, 2, 4]}, {"block_count": 0}])
def test_file_that_does_not_tell_its_shape(wrong, tmp_path):
    write_gguf(tmp_path / "a.gguf", **wrong)
    with pytest.raises(ModelFileError, match="모델의 모양을 알 수 없습니다"):
        shape_of(tmp_path / "a.gguf")


def test_damaged_file(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(ModelFileError):
        shape_of(tmp_path / "a.gguf")


# --- verdicts, worked by hand -----------------------------------------------------------------------------------------

# Below, GiB: weights + KV cache + buffers, against what is usable. Buffers: 4 * 512 * (vocabulary + 4 * feed-forward) bytes.
WORKED = {
    # 4.022e9 * 4.5 / 8 = 2.11, 147456 * 4096 = 0.56, 2048 * 190848 = 0.36: 3.03 of 4. 21.3e9 / 2.263e9 = 9.4 tokens/s.
    "4B at 4.5 bits on the small office PC": (("office-8", "qwen3-4b", "llama.cpp", 4.5), [], "", 3.03, 9.4),
    # 8.030e9 * 2 = 14.96, 131072 * 4096 = 0.50, 2048 * 185600 = 0.35: 15.81 of 11, short by 4.81. At 8.5 bits 7.95: 8.80.
    "8B in 16 bits on the larger office PC": (
        ("office-16", "llama-3.1-8b"), ["메모리가 4.8 GiB 모자랍니다"], "가중치 16비트 → 8.5비트", 15.81, None,
    ),
    # 4.21 + 0.50 + 0.35 = 5.06 of 4; with 1024 tokens still 4.69. Qwen3 4B (3.03) is half of 8B; the next machine has 2.5 times 4.
    "8B at 4.5 bits on the small office PC": (
        ("office-8", "llama-3.1-8b", "llama.cpp", 4.5), ["메모리가 1.1 GiB 모자랍니다"], "모델 Llama 3.1 8B → Qwen3 4B", 5.06, None,
    ),
    # 4.022e9 * 2 = 7.49, 0.56, 0.36: 8.42 of 11: memory is enough.
    "vLLM for GPUs without a GPU": (("office-16", "qwen3-4b", "vllm"), ["NVIDIA GPU가 필요"], "엔진 vLLM → llama.cpp", 8.42, None),
    "vLLM on Pascal": (("p40", "qwen3-4b", "vllm"), ["7.5 이상.*6.1입니다"], "엔진 vLLM → llama.cpp", 8.42, None),
    "vLLM on Volta": (("v100", "qwen3-4b", "vllm"), ["7.5 이상.*7.0입니다"], "엔진 vLLM → llama.cpp", 8.42, None),
    # 15.81 of 10; llama.cpp runs on Pascal, and at 8.5 bits 8.80 fits: two settings rather than another card.
    "two limits, two settings": (
        ("gtx-1080-ti", "llama-3.1-8b", "vllm"), ["7.5 이상.*6.1입니다", "메모리가 5.8 GiB 모자랍니다"],
        "엔진 vLLM → llama.cpp, 가중치 16비트 → 8.5비트", 15.81, None,
    ),
    # 15.81 of 14.5. Turing itself is new enough.
    "8B in 16 bits on a T4": (("t4", "llama-3.1-8b", "vllm"), ["메모리가 1.3 GiB 모자랍니다"], "가중치 16비트 → 8.5비트", 15.81, None),
    # 8.191e9 * 2 = 15.26, 147456 * 32768 * 4 = 18.00, 2048 * 201088 = 0.38: 33.64 of 23. For the KV cache 7.36 are left, 13398
    # tokens for each of four: in steps of 256, 13312 (factor 2.5). 4.5 bits would do (22.67, factor 3.6), one user too (4).
    "long context for four": (
        ("rtx-4090", "qwen3-8b", "vllm", 16, 32768, 4), ["메모리가 10.6 GiB 모자랍니다"], "컨텍스트 32,768토큰 → 13,312토큰", 33.64, None,
    ),
    # 14.96 + 64 * 0.125 + 0.35 = 23.31 of 22. (22 - 15.31) / 0.125 = 53.5 users.
    "many users": (
        ("l4", "llama-3.1-8b", "vllm", 16, 1024, 64), ["메모리가 1.3 GiB 모자랍니다"], "사용자 64명 → 53명", 23.31, None,
    ),
    # 0.596e9 * 2 = 1.11, 114688 * 65536 = 7.00, 2048 * 164224 = 0.31: 8.42 of 11, but the model ends at 32768.
    "longer than the model": (
        ("office-16", "qwen3-0.6b", "llama.cpp", 16, 65536), ["32,768토큰까지"], "컨텍스트 65,536토큰 → 32,768토큰", 8.42, None,
    ),
    # 70.55e9 * 2 = 131.42, 327680 * 4096 = 1.25, 2048 * 242944 = 0.46: 133.13 of 78. At 8.5 bits 69.82: 71.53.
    "70B in 16 bits on one A100": (
        ("a100-80", "llama-3.1-70b", "vllm"), ["메모리가 55.1 GiB 모자랍니다"], "가중치 16비트 → 8.5비트", 133.13, None,
    ),
    # 133.13 of 138. One row of the input table is read: (70.55e9 - 128256 * 8192) * 2 = 139.0e9 bytes; 4800e9 / 139.0e9 = 34.5.
    "70B in 16 bits on one H200": (("h200", "llama-3.1-70b", "vllm"), [], "", 133.13, 34.5),
    # 36.96 + 1.25 + 0.46 = 38.67 of 23. No setting helps; the next card with room has 78 / 23 = 3.4 times as much, the next smaller
    # model is 8.6 times smaller (8.191e9).
    "70B at 4.5 bits on one RTX 4090": (
        ("rtx-4090", "llama-3.1-70b", "llama.cpp", 4.5), ["메모리가 15.7 GiB 모자랍니다"],
        "장비 GeForce RTX 4090 24 GB (Ada) → A100 80 GB SXM (Ampere)", 38.67, None,
    ),
    # 3.880e9 * 2 = 7.23, 4096 * (5 * 8192 + 29 * 1024) = 0.27, 2048 * 303104 = 0.58: 8.07 of 11.8. 100e9 / 7.760e9 = 12.9.
    "Gemma 3 4B on a MacBook": (("macbook-air-m2", "gemma-3-4b", "llama.cpp", 16, 8192), [], "", 8.07, 12.9),
    # 69.82 + 1.25 + 0.46 = 71.53 of 107.5: large enough, but no CUDA.
    "vLLM on a Mac": (
        ("macbook-pro-m4-max", "llama-3.1-70b", "vllm", 8.5), ["NVIDIA GPU가 필요"], "엔진 vLLM → llama.cpp", 71.53, None,
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
        "  필요한 메모리 3.0 GiB, 쓸 수 있는 메모리 4.0 GiB",
        "  한 사람이 받는 속도는 빨라야 초당 9.4토큰",
    ]
    assert str(judge("p40", "qwen3-4b", "vllm")).splitlines() == [
        "안 됩니다: Tesla P40 24 GB (Pascal) / Qwen3 4B / vLLM",
        "  필요한 메모리 8.4 GiB, 쓸 수 있는 메모리 22.0 GiB",
        "  막는 것: vLLM에는 컴퓨트 캐퍼빌리티가 7.5 이상인 GPU가 필요한데, 이 GPU는 6.1입니다.",
        "  바꿀 것: 엔진 vLLM → llama.cpp",
    ]


# --- bad input --------------------------------------------------------------------------------------------------------

BAD = {
    "unknown machine": (("office-32", "qwen3-4b"), r"machine='office-32'(?s:.)*아는 이름: office-8, "),
    "unknown shape": (("office-8", "qwen4"), r"shape='qwen4'(?s:.)*아는 이름: (?s:.)*qwen3-4b"),
    "unknown engine": (("office-8", "qwen3-4b", "vLLM2"), r"engine='vLLM2'(?s:.)*아는 이름: llama.cpp, vllm"),
    "machine as a number": ((8, "qwen3-4b"), r"machine=8(?s:.)*아는 이름"),
    "shape as a list": (("office-8", ["qwen3-4b"]), r"shape=(?s:.)*아는 이름"),
    "machine where the shape belongs": (("office-8", machines()["t4"]), r"shape=(?s:.)*아는 이름"),
    "negative context": (("office-8", "qwen3-4b", "llama.cpp", 16, -4096), r"context=-4096(?s:.)*1 이상의 정수"),
    "no context": (("office-8", "qwen3-4b", "llama.cpp", 16, 0), "context=0"),
    "half a token": (("office-8", "qwen3-4b", "llama.cpp", 16, 40.5), "context=40.5"),
    "context as text": (("office-8", "qwen3-4b", "llama.cpp", 16, "4096"), "context='4096'"),
    "no users": (("office-8", "qwen3-4b", "llama.cpp", 16, 4096, 0), "users=0"),
    "users as yes": (("office-8", "qwen3-4b", "llama.cpp", 16, 4096, True), "users=True"),
    "bits as text": (("office-8", "qwen3-4b", "llama.cpp", "Q4"), r"bits='Q4'(?s:.)*1부터 32까지"),
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
