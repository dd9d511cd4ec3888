"""The hardware calculator: what a model needs, whether a machine can give it, and what would have to change if not.

Everything here is arithmetic over two lists, `data/hardware.yaml` and `data/models.yaml`. Memory is counted in bytes
and told in GiB (2**30 bytes), which is also what a "24 GB" graphics card holds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from servinglab.curriculum import Strict, checked, read
from servinglab.errors import ModelFileError, SettingError
from servinglab.models import gguf_file, mixes
from servinglab.models.shapes import Shape, Source, find_shape, known, shapes
from servinglab.paths import DATA

GIB = 2**30

BITS = (16.0, 8.5, 6.5625, 4.5)
"""Bits per weight of ggml's F16, Q8_0 (34 bytes for 32 weights), Q6_K (210 for 256) and Q4_0 (18 for 32).

vLLM's 8- and 4-bit formats take about as much.
"""

BATCH = 512
"""Prompt tokens that `llama-server` computes at once (`-ub`)."""

LEAST_CONTEXT = 1024
"""Tokens; a shorter context is no advice."""

ADVISED = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "MXFP4_MOE")
"""Types that are advised where a setup names a type, the counterpart of `BITS`: with fewer bits the answers suffer.

The last is for mixtures of experts; a dense model takes as much in it as in Q8_0.
"""

KV_TYPES = {name: mixes.block_bits(name.upper()) / 8 for name in ("f16", "q8_0", "q4_0")}
"""Bytes that a value of the KV cache takes, by the name that `llama-server` takes (`-ctk`, `-ctv`)."""

CELLS = 256
"""llama.cpp gives a user KV cells in steps of so many (src/llama-context.cpp, src/llama-kv-cache-iswa.cpp)."""

MOST = 10**9
"""Tokens or users; more is a slip of the keyboard."""


class Machine(Strict):
    """A computer or a graphics card.

    Attributes:
        memory: GiB that the engine computes in: the card's own, else the computer's.
        reserved: GiB of it that others take (system, browser, driver, screen). An estimate.
        bandwidth: GB/s (10**9 bytes) between that memory and the processor.
        compute_capability: NVIDIA's number for a card's generation; None for what is no NVIDIA card.
    """

    model_config = ConfigDict(frozen=True)
    id: str
    name: str
    backend: Literal["cpu", "cuda", "metal"]
    memory: float = Field(gt=0)
    reserved: float = Field(ge=0)
    bandwidth: float = Field(gt=0)
    compute_capability: float | None
    source: Source
    date: date

    @model_validator(mode="after")
    def leaves_something(self) -> Machine:
        if self.reserved >= self.memory:
            raise PydanticCustomError("reserved", "reserved가 memory보다 작아야 합니다.")
        return self

    @property
    def usable(self) -> float:
        """Bytes left for a model."""
        return (self.memory - self.reserved) * GIB


class _Machines(Strict):
    machines: list[Machine]


@dataclass(frozen=True)
class Engine:
    """What an engine demands of a machine."""

    name: str
    backends: tuple[str, ...]
    capability: float = 0.0
    """Lowest compute capability of a CUDA card."""


ENGINES = {
    "llama.cpp": Engine("llama.cpp", ("cpu", "cuda", "metal")),
    # docs.vllm.ai, "GPU" under "Installation", August 2026. The build for CPUs is another package: lesson 05.
    "vllm": Engine("vLLM", ("cuda",), 7.5),
}


@dataclass(frozen=True)
class Need:
    """Bytes that serving takes."""

    weights: float
    kv: float
    buffers: float

    @property
    def total(self) -> float:
        return self.weights + self.kv + self.buffers


@dataclass(frozen=True)
class Setup:
    """One question to the calculator: who serves what, where, for how many."""

    machine: Machine
    shape: Shape
    engine: Engine
    bits: float | str
    context: int
    users: int
    kv: str = "f16"

    @property
    def need(self) -> Need:
        return need(self.shape, self.bits, self.context, self.users, self.kv)

    @property
    def tokens_per_second(self) -> float:
        """More than this no single user gets: for each token every weight crosses from memory to processor once.

        Bandwidth over bytes per token (the roofline of Williams et al. 2009).
        """
        return self.machine.bandwidth * 1e9 / bytes_per_token(self.shape, self.bits)


@dataclass(frozen=True, repr=False)
class Verdict:
    """The calculator's answer, in Korean where a notebook shows it.

    Attributes:
        limits: what stands against it, a sentence each; empty for a yes.
        better: the smallest change of the setup that makes it a yes; None for a yes.
    """

    setup: Setup
    limits: tuple[str, ...]
    better: Setup | None

    @property
    def ok(self) -> bool:
        return not self.limits

    @property
    def change(self) -> str:
        """`better` in words: "가중치 16비트 → 8.5비트"; "" for a yes."""
        return "" if self.better is None else ", ".join(differences(self.setup, self.better))

    def __repr__(self) -> str:
        setup = self.setup
        head = "됩니다" if self.ok else "안 됩니다"
        lines = [
            f"{head}: {setup.machine.name} / {setup.shape.name} / {setup.engine.name}",
            f"  필요한 메모리 {gib(setup.need.total)}, 쓸 수 있는 메모리 {gib(setup.machine.usable)}",
        ]
        if self.ok:
            lines.append(f"  한 사람이 받는 속도는 빨라야 초당 {per_second(setup.tokens_per_second)}토큰")
        lines += [f"  막는 것: {limit}" for limit in self.limits]
        return "\n".join(lines if self.ok else [*lines, f"  바꿀 것: {self.change or '목록에 있는 것으로는 되지 않습니다.'}"])


# --- the lists --------------------------------------------------------------------------------------------------------


@cache
def machines(path: Path = DATA / "hardware.yaml") -> dict[str, Machine]:
    """The known machines by id, as "t4". Raises SettingError that names file and field."""
    return {machine.id: machine for machine in checked(path, _Machines, read(path)).machines}


def shape_of(path: Path) -> Shape:
    """The shape of a GGUF file, from its metadata and its list of tensors. A sliding window in it is not read.

    Raises ModelFileError for a file that is damaged or does not tell what is needed.
    """
    file = gguf_file.read(path)
    own = {name: entry.value for name, entry in file.own.items()}
    tensors = {tensor.name: tensor for tensor in file.tensors}
    try:
        heads = own["attention.head_count"]
        return Shape(
            id=path.stem,
            name=file.get("general.name") or path.stem,
            architecture=file.get("general.architecture"),
            parameters=file.weights,
            layers=own["block_count"],
            hidden=own["embedding_length"],
            heads=heads,
            kv_heads=own.get("attention.head_count_kv", heads),
            head_size=own.get("attention.key_length", own["embedding_length"] // heads),
            feed_forward=own["feed_forward_length"],
            vocabulary=tensors["token_embd.weight"].shape[0],
            tied="output.weight" not in tensors,
            context=own["context_length"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"모델의 모양을 알 수 없습니다: {path}",
            f"메타데이터에 없거나 이 계산기가 모르는 꼴입니다 ({type(error).__name__}: {str(error).splitlines()[0]}).",
            "층마다 모양이 같은 보통의 모델을 쓰세요. 아는 모델의 이름은 memory.shapes()로 볼 수 있습니다.",
        ) from error


# --- what is needed ---------------------------------------------------------------------------------------------------


def kv_bytes_per_token(shape: Shape | str, bytes_per_value: float = 2.0) -> int:
    """Bytes of KV cache that one token takes: a key and a value, in every layer, for every key/value head.

    2 · layers · KV heads · head size · bytes per value (Kwon et al. 2023, arXiv 2309.06180, section 3, for the case that each
    query head has its own). Engines keep the values in 16 bits unless told otherwise.
    """
    shape = find_shape(shape)
    require_number("bytes_per_value", bytes_per_value, 0.25, 8)
    return round(2 * shape.layers * shape.kv_heads * shape.head_size * bytes_per_value)


def weight_bytes(shape: Shape | str, bits: float | str) -> float:
    """Bytes of the weights at an average of `bits` per weight, or in a file of a named type, as "Q4_K_M" (`mixes.MIXES`)."""
    shape = find_shape(shape)
    if isinstance(bits, str):
        return mixes.file_bytes(shape, known_type(bits))
    require_number("bits", bits, 1, 32)
    return shape.parameters * bits / 8


def bits_per_weight(shape: Shape | str, bits: float | str) -> float:
    """The average over the model's own tensors: "Q4_K_M" is 4.9 in one model, 5.2 in another."""
    shape = find_shape(shape)
    return weight_bytes(shape, bits) * 8 / shape.parameters


def bytes_per_token(shape: Shape | str, bits: float | str) -> float:
    """Bytes of the weights that one token reads: not those of experts at rest, and one row of an input table of its own."""
    shape, whole = find_shape(shape), weight_bytes(shape, bits)
    if isinstance(bits, str):
        return whole - mixes.unread_bytes(shape, bits)
    return whole - mixes.unread_weights(shape) * bits / 8


def kv_bytes(shape: Shape | str, context: int, users: int, kv: str = "f16") -> float:
    """Bytes of KV cache for `users` with `context` tokens each, its values in the type `kv`."""
    shape = find_shape(shape)
    full, slid = cells(shape, context)
    require_count("users", users)
    windowed = shape.layers - (shape.full_layers or shape.layers)
    kept = (shape.layers - windowed) * full + windowed * slid
    return 2 * shape.kv_heads * shape.head_size * known("kv", kv, KV_TYPES) * kept * users


def cells(shape: Shape, context: int) -> tuple[int, int]:
    """Tokens that are kept of a user's `context` in a layer that looks back at everything, and in one with a window.

    The latter keeps its window and one batch (llama.cpp's src/llama-kv-cache-iswa.cpp).
    """
    require_count("context", context)
    full = in_steps(context)
    return full, full if shape.window is None else min(full, in_steps(shape.window + BATCH))


def in_steps(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS


def buffer_bytes(shape: Shape | str, context: int, users: int) -> float:
    """Bytes for what is computed on the way: an estimate, whose error the tests print beside what `llama-server` logs.

    For a batch in float32 three times the feed-forward and four times the model's width; which token may look at which, in
    float16; the scores of one token for each user. The factors are measured (llama.cpp as in llama-cpp-python 0.3.36, on a CPU).
    """
    shape = find_shape(shape)
    full, slid = cells(shape, context)
    require_count("users", users)
    batch = min(BATCH, full * users)
    on_the_way = 4 * batch * (3 * shape.feed_forward * shape.experts_used + 4 * shape.hidden)
    masks = 2 * batch * (full if shape.window is None else full + slid)
    return float(on_the_way + masks + 4 * shape.vocabulary * users)


def need(shape: Shape | str, bits: float | str, context: int, users: int, kv: str = "f16") -> Need:
    """Bytes to serve `users` at once with `context` tokens each. Raises SettingError for what is unknown or out of range.

    Engines for GPUs take more buffers than estimated here, see `Machine.reserved`. On a CPU llama.cpp copies 4-bit matrices into
    another order ("CPU_REPACK" in its log); what it copied from stays in the file's cache, which the system may drop.
    """
    return Need(weight_bytes(shape, bits), kv_bytes(shape, context, users, kv), buffer_bytes(shape, context, users))


# --- the verdict ------------------------------------------------------------------------------------------------------


def judge(
    machine: Machine | str,
    shape: Shape | str,
    engine: str = "llama.cpp",
    bits: float | str = 16.0,
    context: int = 4096,
    users: int = 1,
    kv: str = "f16",
) -> Verdict:
    """Whether `engine` on `machine` can serve the model to `users` with `context` tokens each.

    Machine and model by id or as they are; `bits` per weight, or a file's type by name. Raises SettingError for what is unknown
    or out of range.
    """
    place = machine if isinstance(machine, Machine) else known("machine", machine, machines())
    setup = Setup(place, find_shape(shape), known("engine", engine, ENGINES), bits, context, users, kv)
    found = limits(setup)
    return Verdict(setup, found, smallest_change(setup) if found else None)


def limits(setup: Setup) -> tuple[str, ...]:
    """What stands against a setup, in Korean."""
    machine, shape, engine, total = setup.machine, setup.shape, setup.engine, setup.need.total
    found = []
    if machine.backend not in engine.backends:
        found.append(f"GPU용 {engine.name}에는 CUDA를 쓰는 NVIDIA GPU가 필요한데, 이 장비에는 없습니다.")
    elif machine.compute_capability is not None and machine.compute_capability < engine.capability:
        found.append(
            f"{engine.name}에는 컴퓨트 캐퍼빌리티가 {engine.capability} 이상인 GPU가 필요한데, 이 GPU는 {machine.compute_capability}입니다."
        )
    if setup.context > shape.context:
        found.append(f"모델이 다룰 수 있는 컨텍스트는 {shape.context:,}토큰까지인데, 설정은 {setup.context:,}토큰입니다.")
    if total > machine.usable:
        found.append(
            f"메모리가 {gib(total - machine.usable)} 모자랍니다. "
            f"{gib(total)}가 필요한데 이 장비에서 쓸 수 있는 것은 {gib(machine.usable)}입니다."
        )
    return tuple(found)


def smallest_change(setup: Setup) -> Setup | None:
    """The nearest setup that works, None where nothing known would do.

    Settings go before another model or machine, few changes before many, and of equals the smallest factor wins.
    """
    for names in (SETTINGS, tuple(CHOICES)):
        for count in range(1, len(names) + 1):
            works = [other for other in alternatives(setup, count, names) if not limits(other)]
            if works:
                return min(works, key=lambda other: distance(setup, other))
    return None


def distance(setup: Setup, other: Setup) -> float:
    """How far apart two setups are: the sum of the logarithms of the factors between them."""
    factors = (
        other.machine.usable / setup.machine.usable,
        other.shape.parameters / setup.shape.parameters,
        bits_per_weight(other.shape, other.bits) / bits_per_weight(setup.shape, setup.bits),
        other.context / setup.context,
        other.users / setup.users,
    )
    return sum(abs(math.log(factor)) for factor in factors)


def fewer_bits(setup: Setup) -> list[float] | list[str]:
    """Numbers where the setup has a number, types where it has a type."""
    if isinstance(setup.bits, str):
        return [kind for kind in ADVISED if weight_bytes(setup.shape, kind) < weight_bytes(setup.shape, setup.bits)]
    return [bits for bits in BITS if bits < setup.bits]


def fewer_users(setup: Setup) -> list[int]:
    """The most users, fewer than now, that the memory holds; at least one."""
    most = bisect_right(range(1, setup.users), setup.machine.usable, key=lambda users: replace(setup, users=users).need.total)
    return [max(most, 1)] if setup.users > 1 else []


def shorter_context(setup: Setup) -> list[int]:
    """The longest context, shorter than now, that model and memory allow, in steps of 256 tokens."""
    steps = range(LEAST_CONTEXT, min(setup.context, setup.shape.context + 1), 256)
    fit = bisect_right(steps, setup.machine.usable, key=lambda context: replace(setup, context=context).need.total)
    return [steps[max(fit, 1) - 1]] if steps else []


# Users and context come last: how many fit depends on all the rest.
CHOICES: dict[str, Callable[[Setup], Iterable[Any]]] = {
    "machine": lambda setup: (machine for machine in machines().values() if machine != setup.machine),
    "shape": lambda setup: (shape for shape in shapes().values() if shape.parameters < setup.shape.parameters),
    "engine": lambda setup: (engine for engine in ENGINES.values() if engine != setup.engine),
    "bits": fewer_bits,
    "users": fewer_users,
    "context": shorter_context,
}
"""What may be changed, and to what."""

SETTINGS = ("engine", "bits", "users", "context")
"""Those of them that cost nothing."""


def alternatives(setup: Setup, count: int, names: tuple[str, ...]) -> Iterator[Setup]:
    """Every setup that differs from `setup` in exactly `count` of the `names`."""
    if count == 0:
        yield setup
        return
    for i, name in enumerate(names):
        for value in CHOICES[name](setup):
            yield from alternatives(replace(setup, **{name: value}), count - 1, names[i + 1 :])


# --- what was asked for -----------------------------------------------------------------------------------------------


def known_type(name: str) -> str:
    known("bits", name, mixes.MIXES)
    return name


def require_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        why = f"{MOST:,} 이하여야 합니다." if isinstance(value, int) and value > MOST else "1 이상의 정수여야 합니다."
        raise SettingError(f"쓸 수 없는 값입니다: {name}={value!r:.40}", why, f"예: {name}=4")


def require_number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        why = f"{least:g}부터 {most:g}까지의 수여야 합니다."
        raise SettingError(f"쓸 수 없는 값입니다: {name}={value!r}", why, f"예: {name}=4")


# --- in words ---------------------------------------------------------------------------------------------------------


def gib(size: float) -> str:
    """Bytes as "3.5 GiB", little ones as "14.0 MiB"."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def bits_in_words(bits: float | str) -> str:
    return bits if isinstance(bits, str) else f"{bits:.3g}비트"


def per_second(rate: float) -> str:
    """Tokens per second, with a decimal where they are few."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def differences(setup: Setup, other: Setup) -> list[str]:
    """What `other` does otherwise, in Korean, as "사용자 8명 → 5명"."""
    words = (
        ("엔진", setup.engine.name, other.engine.name),
        ("가중치", bits_in_words(setup.bits), bits_in_words(other.bits)),
        ("컨텍스트", f"{setup.context:,}토큰", f"{other.context:,}토큰"),
        ("사용자", f"{setup.users:,}명", f"{other.users:,}명"),
        ("모델", setup.shape.name, other.shape.name),
        ("장비", setup.machine.name, other.machine.name),
    )
    return [f"{what} {old} → {new}" for what, old, new in words if old != new]
