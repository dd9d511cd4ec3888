"""The header of a GGUF file, read and checked byte by byte before anything is loaded.

Layout and names of the fields follow the GGUF specification (docs/gguf.md in ggml's repository). Every count and length is
compared with what the file can hold before memory is taken, so that a damaged or hostile file ends in an error and not in a
dead kernel.
"""

from __future__ import annotations

import html
import math
import re
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
from numpy.typing import NDArray

from servinglab.errors import ModelFileError
from servinglab.models.damage import AGAIN, damaged, require_file, shown

NUMBERS = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "B"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}
"""Value types of fixed size: their number in the file, name, and form for `struct`."""

BOOL, STRING, ARRAY = 7, 8, 9

BLOCKS = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
"""Tensor types: their number in the file, name, weights a block, bytes a block."""

HEADER_LIMIT = 32 * 2**20
"""Bytes of metadata and tensor infos. A vocabulary of 262,144 tokens with half a million merges takes half of it."""

OBJECTS_LIMIT = 2**20
"""Strings in all arrays together, an inner array counting as sixteen: more would take more than a second and 200 MB."""

ENTRIES_LIMIT = 2**15
"""Metadata entries, and tensors. Models have dozens of the one and hundreds of the other."""

DEPTH_LIMIT = 4
"""Arrays inside arrays."""

KEY_LIMIT, NAME_LIMIT = 65535, 63
"""Bytes of a key (the specification's limit) and of a tensor's name (ggml's GGML_MAX_NAME, less the zero at its end)."""

LEAST_ENTRY, LEAST_TENSOR = 8 + 1 + 4 + 1, 8 + 1 + 4 + 8 + 4 + 8
"""Bytes of the smallest metadata entry (a key of one letter, an uint8) and of the smallest tensor info (one dimension)."""

Row = tuple[str, ...]
"""A row of a table that is shown."""

KILLS = f"이대로 엔진에 넣으면 커널이 죽습니다. {AGAIN}"
NEWER = "이 과정의 도구보다 새로운 llama.cpp로 만든 파일일 수도 있습니다. 다른 파일을 받거나 다시 만드세요."


@dataclass(frozen=True, eq=False)
class Entry:
    """One metadata entry: `kind` as "uint32" or "array[string]"; `offset` of its key, in bytes from the file's beginning.

    The value is an int, float, bool or str; arrays of numbers are NumPy arrays, other arrays lists.
    """

    key: str
    kind: str
    value: Any
    offset: int


@dataclass(frozen=True)
class Tensor:
    """One tensor: `kind` as "Q8_0", `shape` in NumPy's order (rows, columns), `offset` and `size` of its data in bytes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        return self.size * 8 / self.weights


@dataclass(frozen=True, eq=False, repr=False)
class GGUF:
    """What a GGUF file says of itself. A notebook shows it as two tables."""

    path: Path
    version: int
    alignment: int
    data_offset: int
    size: int
    metadata: tuple[Entry, ...]
    tensors: tuple[Tensor, ...]

    def get(self, key: str) -> Any:
        """The value of a metadata key, None where there is none."""
        return next((entry.value for entry in self.metadata if entry.key == key), None)

    @property
    def own(self) -> dict[str, Entry]:
        """The metadata by key, without the name of the architecture in front: "block_count" for "llama.block_count"."""
        architecture = self.get("general.architecture")
        prefix = f"{architecture}." if isinstance(architecture, str) else ""
        return {entry.key.removeprefix(prefix): entry for entry in self.metadata}

    def blocks(self, tensor: Tensor) -> NDArray[np.uint8]:
        """The bytes of a tensor (rows, bytes a row), left in the file until they are looked at."""
        rows = tensor.weights // tensor.shape[-1]
        return np.memmap(self.path, np.uint8, "r", tensor.offset, (rows, tensor.size // rows))

    @property
    def weights(self) -> int:
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes on average, header and padding not counted."""
        return sum(tensor.size for tensor in self.tensors) * 8 / self.weights

    @property
    def summary(self) -> str:
        return (
            f"{self.path.name}: GGUF 버전 {self.version}, {self.size:,}바이트 (머리말 {self.data_offset:,}바이트), "
            f"텐서 {len(self.tensors):,}개, 가중치 {self.weights:,}개, 가중치 하나에 평균 {self.bits_per_weight:.2f}비트"
        )

    @property
    def tables(self) -> tuple[list[Row], list[Row]]:
        """Metadata and tensors as texts, under `ENTRY_HEADS` and `TENSOR_HEADS`."""
        entries: list[Row] = [(shown(entry.key), entry.kind, preview(entry.value)) for entry in self.metadata]
        return entries, [cells(tensor) for tensor in self.tensors]

    def __repr__(self) -> str:
        metadata, tensors = self.tables
        return "\n".join([self.summary, "", *columns(ENTRY_HEADS, metadata, "<<<"), "", *columns(TENSOR_HEADS, tensors, "<<>>>>")])

    def _repr_html_(self) -> str:
        """Both tables fold, since a large model has hundreds of tensors; the theme's own colours only."""
        metadata, tensors = self.tables
        return (
            f'{STYLE}<div class="servinglab-gguf"><p>{html.escape(self.summary)}</p>'
            f"{folded(f'메타데이터 {len(metadata):,}개', ENTRY_HEADS, metadata, '<<<')}"
            f"{folded(f'텐서 {len(tensors):,}개', TENSOR_HEADS, tensors, '<<>>>>')}</div>"
        )


# --- reading ----------------------------------------------------------------------------------------------------------


class _Reader:
    """A place in a file, and the way to the next one. Every method raises ModelFileError naming field and place."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.at = 0
        self.objects = 0

    def fail(self, field: str, at: int, why: str, todo: str = AGAIN) -> ModelFileError:
        return damaged(self.path, field, at, why, todo)

    def require(self, count: int, field: str) -> None:
        """That so many bytes follow, within the file and within the limit of a header."""
        if count > self.size - self.at:
            left = self.size - self.at
            raise self.fail(field, self.at, f"{count:,}바이트가 있어야 하는데 파일의 끝까지 {left:,}바이트가 남았습니다.")
        if count > HEADER_LIMIT - self.at:
            raise self.fail(field, self.at, f"머리말이 {HEADER_LIMIT:,}바이트보다 깁니다. 보통의 모델은 그 절반을 넘지 않습니다.")

    def take(self, count: int, field: str) -> bytes:
        self.require(count, field)
        self.at += count
        return self.file.read(count)

    def number(self, form: str, field: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(form), field))[0]

    def text(self, field: str, most: int = HEADER_LIMIT) -> str:
        at = self.at
        length = self.number("Q", f"{field}의 길이")
        if length > most:
            raise self.fail(f"{field}의 길이", at, f"길어야 {most:,}바이트인데 {length:,}바이트라고 적혀 있습니다.")
        return self.decoded(self.take(length, field), field, at + 8)

    def texts(self, count: int, field: str) -> list[str]:
        """`text` many times over, without a call for each: vocabularies are long."""
        read, end, at, found = self.file.read, min(self.size, HEADER_LIMIT), self.at, []
        for i in range(count):
            length = int.from_bytes(read(8), "little") if at + 8 <= end else 0
            if at + 8 + length > end:
                self.at = at
                self.require(8, f"{field}[{i}]의 길이")
                self.at += 8
                self.require(length, f"{field}[{i}]")
            found.append(self.decoded(read(length), f"{field}[{i}]", at + 8))
            at += 8 + length
        self.at = at
        return found

    def decoded(self, raw: bytes, field: str, at: int) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.fail(field, at + error.start, "UTF-8 글자가 아닌 바이트가 있습니다.") from error

    def value(self, kind: int, field: str, depth: int = 0) -> tuple[str, Any]:
        """A value of type `kind`: the type's name and the value."""
        at = self.at
        if kind == STRING:
            return "string", self.text(field)
        if kind == ARRAY:
            return self.array(field, depth)
        if kind not in NUMBERS:
            raise self.fail(f"{field}의 value_type", at - 4, f"모르는 종류입니다: {kind}", NEWER)
        name, form = NUMBERS[kind]
        value = self.number(form, field)
        if kind != BOOL:
            return name, value
        if value > 1:
            raise self.fail(field, at, f"bool은 0이나 1이어야 하는데 {value}입니다.")
        return name, value == 1

    def array(self, field: str, depth: int) -> tuple[str, Any]:
        """An array: its type as "array[uint32]", and a NumPy array or a list."""
        if depth == DEPTH_LIMIT:
            raise self.fail(field, self.at, f"배열이 {DEPTH_LIMIT}겹보다 깊게 들어 있습니다.")
        at = self.at
        kind, count = self.number("I", f"{field}의 array.type"), self.number("Q", f"{field}의 array.len")
        if kind not in (STRING, ARRAY, *NUMBERS):
            raise self.fail(f"{field}의 array.type", at, f"모르는 종류입니다: {kind}", NEWER)
        if kind in NUMBERS:
            return f"array[{NUMBERS[kind][0]}]", self.numbers(kind, count, field)
        self.objects += count if kind == STRING else 16 * count
        if count * (8 if kind == STRING else 12) > self.size - self.at or self.objects > OBJECTS_LIMIT:
            raise self.fail(f"{field}의 array.len", at + 4, f"원소가 {count:,}개라고 적혀 있는데, 그만큼 들어 있을 수 없습니다.")
        if kind == STRING:
            return "array[string]", self.texts(count, field)
        return "array[array]", [self.array(f"{field}[{i}]", depth + 1)[1] for i in range(count)]

    def numbers(self, kind: int, count: int, field: str) -> NDArray[Any]:
        at, form = self.at, np.dtype(NUMBERS[kind][1]).newbyteorder("<")
        values: NDArray[Any] = np.frombuffer(self.take(count * form.itemsize, field), form)
        if kind != BOOL:
            return values
        if (values > 1).any():
            raise self.fail(field, at + int((values > 1).argmax()), "bool은 0이나 1이어야 합니다.")
        return values.astype(bool)


def read(path: Path | str) -> GGUF:
    """The header of a GGUF file. Raises ModelFileError that names the field and its place in the file.

    What it accepts llama.cpp either loads or refuses with an ordinary error: see `refuse_what_aborts`.
    """
    path = Path(path).expanduser()
    size = require_file(path)
    try:
        with path.open("rb") as file:
            found = _read(_Reader(path, file, size))
    except OSError as error:
        raise ModelFileError(f"모델 파일을 열 수 없습니다: {path}", str(error), "파일의 권한과 디스크를 확인하세요.") from error
    refuse_what_aborts(found)
    return found


def _read(reader: _Reader) -> GGUF:
    version, tensor_count, entry_count = _start(reader)
    metadata = tuple(_entries(reader, entry_count))
    alignment = _alignment(reader, metadata)
    infos = list(_tensor_infos(reader, tensor_count, alignment))
    data_offset = reader.at + -reader.at % alignment
    tensors = tuple(replace(tensor, offset=tensor.offset + data_offset) for tensor, _ in infos)
    _require_places(reader, tensors, [at for _, at in infos])
    return GGUF(reader.path, version, alignment, data_offset, reader.size, metadata, tensors)


def _start(reader: _Reader) -> tuple[int, int, int]:
    """The 24 bytes at the beginning: version, number of tensors, number of metadata entries."""
    magic = reader.take(min(4, reader.size), "magic")
    if magic != b"GGUF":
        raise ModelFileError(
            f"GGUF 파일이 아닙니다: {reader.path}",
            f"0바이트 위치의 magic: GGUF라는 네 글자여야 하는데 이 파일의 첫머리는 다릅니다: {magic!r}",
            "확장자가 .gguf인 모델 파일을 고르세요. safetensors 폴더는 convert.convert로 바꿀 수 있습니다.",
        )
    version = reader.number("I", "version")
    if version not in (2, 3):
        raise reader.fail("version", 4, *_why_not(version))
    tensors = _count(reader, "tensor_count", LEAST_TENSOR)
    entries = _count(reader, "metadata_kv_count", LEAST_ENTRY)
    if tensors == 0:
        raise reader.fail("tensor_count", 8, "텐서가 하나도 없습니다.", "가중치가 든 모델 파일을 고르세요.")
    return version, tensors, entries


def _why_not(version: int) -> tuple[str, str]:
    """What is wrong with a version, and what to do."""
    if int.from_bytes(version.to_bytes(4, "big"), "little") in (1, 2, 3):
        return "바이트의 차례가 거꾸로인 빅 엔디언 파일입니다.", "리틀 엔디언으로 만든 파일을 받으세요. 보통의 컴퓨터는 모두 그것을 씁니다."
    if version == 1:
        return "2023년에 없어진 버전 1입니다.", "버전 3으로 만든 파일을 받으세요."
    return f"버전은 2나 3이어야 하는데 {version:,}입니다.", NEWER


def _count(reader: _Reader, field: str, least: int) -> int:
    """A number of things of at least `least` bytes each."""
    at = reader.at
    count: int = reader.number("Q", field)
    if count > min(reader.size // least, ENTRIES_LIMIT):
        raise reader.fail(field, at, f"{count:,}개라고 적혀 있는데, 파일에 그만큼 들어 있을 수 없습니다.")
    return count


def _entries(reader: _Reader, count: int) -> Iterator[Entry]:
    seen = set()
    for i in range(count):
        at = reader.at
        key = reader.text(f"metadata_kv[{i}].key", KEY_LIMIT)
        if not key or key in seen:
            raise reader.fail(f"metadata_kv[{i}].key", at, f"같은 키가 두 번 나옵니다: {shown(key)}" if key else "키가 비어 있습니다.")
        seen.add(key)
        name = shown(key)
        kind, value = reader.value(reader.number("I", f"{name}의 value_type"), name)
        yield Entry(key, kind, value, at)


def _alignment(reader: _Reader, metadata: tuple[Entry, ...]) -> int:
    """`general.alignment`: data begins at multiples of it. The specification wants a multiple of 8, llama.cpp a power of two."""
    for entry in metadata:
        if entry.key == "general.alignment":
            if entry.kind != "uint32" or entry.value not in (2**power for power in range(3, 21)):
                why = f"8부터 {2**20:,}까지의 2의 거듭제곱이어야 하는데 {preview(entry.value)}입니다 ({entry.kind})."
                raise reader.fail(entry.key, entry.offset, why)
            return int(entry.value)
    return 32


def _tensor_infos(reader: _Reader, count: int, alignment: int) -> Iterator[tuple[Tensor, int]]:
    """Tensors whose offsets still count from the beginning of the data, each with the place of its offset in the header."""
    seen = set()
    for i in range(count):
        at = reader.at
        name = reader.text(f"tensor_infos[{i}].name", NAME_LIMIT)
        if not name or name in seen:
            why = f"같은 이름이 두 번 나옵니다: {shown(name)}" if name else "이름이 비어 있습니다."
            raise reader.fail(f"tensor_infos[{i}].name", at, why)
        seen.add(name)
        shape = _shape(reader, shown(name))
        kind, size = _size(reader, name, shape)
        at = reader.at
        offset = reader.number("Q", f"{shown(name)}의 offset")
        if offset % alignment:
            raise reader.fail(f"{shown(name)}의 offset", at, f"{alignment}의 배수여야 하는데 {offset:,}입니다.")
        yield Tensor(name, kind, shape, offset, size), at


def _shape(reader: _Reader, name: str) -> tuple[int, ...]:
    """One to four dimensions, none of them zero. The file gives the length of a row first, NumPy last."""
    at = reader.at
    count = reader.number("I", f"{name}의 n_dimensions")
    if not 1 <= count <= 4:
        raise reader.fail(f"{name}의 n_dimensions", at, f"차원은 1개부터 4개까지인데 {count:,}개라고 적혀 있습니다.")
    at = reader.at
    shape = tuple(reader.number("Q", f"{name}의 dimensions[{i}]") for i in range(count))
    if 0 in shape:
        raise reader.fail(f"{name}의 dimensions[{shape.index(0)}]", at + 8 * shape.index(0), "크기가 0인 텐서입니다.")
    return shape[::-1]


def _size(reader: _Reader, name: str, shape: tuple[int, ...]) -> tuple[str, int]:
    """The tensor's type, and its bytes."""
    at, field = reader.at, shown(name)
    number = reader.number("I", f"{field}의 type")
    if number not in BLOCKS:
        raise reader.fail(f"{field}의 type", at, f"모르는 텐서 종류입니다: {number}", NEWER)
    kind, weights, size = BLOCKS[number]
    if wanted := _type_that_works(name, kind):
        raise reader.fail(f"{field}의 type", at, f"{wanted}여야 하는데 {kind}입니다.", KILLS)
    if shape[-1] % weights:
        why = f"한 줄의 가중치 {shape[-1]:,}개가 {kind} 블록의 크기인 {weights}개로 나누어떨어지지 않습니다."
        raise reader.fail(f"{field}의 dimensions[0]", at - 8 * len(shape), why)
    total = math.prod(shape) // weights * size
    if total > reader.size:
        why = f"모두 곱하면 {total:.3g}바이트인데, 파일은 {reader.size:,}바이트입니다."
        raise reader.fail(f"{field}의 dimensions", at - 8 * len(shape), why)
    return kind, total


def _require_places(reader: _Reader, tensors: tuple[Tensor, ...], at: list[int]) -> None:
    """That every tensor lies inside the file, and no two of them on the same bytes."""
    for tensor, place in zip(tensors, at, strict=True):
        if tensor.offset + tensor.size > reader.size:
            why = f"데이터가 {tensor.offset + tensor.size:,}바이트까지라고 적혀 있는데 파일은 {reader.size:,}바이트입니다."
            raise reader.fail(f"{shown(tensor.name)}의 offset", place, why)
    in_order = sorted(zip(tensors, at, strict=True), key=lambda pair: pair[0].offset)
    for (tensor, _), (following, place) in pairwise(in_order):
        if tensor.offset + tensor.size > following.offset:
            raise reader.fail(f"{shown(following.name)}의 offset", place, f"{shown(tensor.name)} 텐서와 겹칩니다.")


# --- what would end the process ---------------------------------------------------------------------------------------


def refuse_what_aborts(file: GGUF) -> None:
    """Raise ModelFileError for values on which llama.cpp calls abort() instead of refusing: a kernel that loads them dies.

    Found in llama-model.cpp (load_hparams), llama-vocab.cpp and ops.cpp of llama-cpp-python 0.3.36, and by trying.
    """
    entries = file.own
    values = {name: entry.value for name, entry in entries.items()}
    for name, why in (*_bad_shape(values), *_bad_experts(values), *_bad_vocabulary(values)):
        raise damaged(file.path, shown(entries[name].key), entries[name].offset, why, KILLS)


def _bad_shape(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and what is wrong with their values. What is missing or of another type llama.cpp refuses by itself."""
    layers = values.get("block_count")
    if isinstance(layers, int) and not 1 <= layers <= 512:
        yield "block_count", f"층은 1개부터 512개까지여야 하는데 {layers:,}개입니다."
    extra = values.get("nextn_predict_layers")
    if isinstance(extra, int) and isinstance(layers, int) and extra > layers:
        yield "nextn_predict_layers", f"층이 {layers:,}개인데 그보다 많은 {extra:,}개입니다."
    heads, kv_heads = values.get("attention.head_count"), values.get("attention.head_count_kv")
    if isinstance(heads, int) and isinstance(kv_heads, int) and kv_heads and heads % kv_heads:
        yield "attention.head_count_kv", f"헤드 {heads:,}개를 KV 헤드 {kv_heads:,}개로 똑같이 나눌 수 없습니다."
    for name in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        epsilon = values.get(name)
        if isinstance(epsilon, float) and not epsilon >= 0:
            yield name, f"0 이상인 수여야 하는데 {epsilon}입니다."
    scaling = values.get("rope.scaling.type")
    if isinstance(scaling, str) and scaling not in ("none", "linear", "yarn", "longrope"):
        yield "rope.scaling.type", f"모르는 방법입니다: {shown(scaling)}"


def _type_that_works(name: str, kind: str) -> str:
    """What the type of a tensor should be where llama.cpp would not compute with `kind` but die; "" where it would."""
    if re.fullmatch(r"\S*norm(\.weight|\.bias)?", name):
        return "" if kind == "F32" else "F32"
    if re.fullmatch(r"(token_embd|output|blk\.\d+\.(attn|ffn)_(q|k|v|qkv|output|gate|up|down)(_exps|_shexp)?)\.weight", name):
        return "실수나 블록으로 된 종류" if kind in ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K") else ""
    return ""


def _bad_experts(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A mixture of experts uses some of its experts, a dense model has none to use."""
    names = ("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count")
    experts, used, groups, groups_used = (_largest(values.get(name)) for name in names)
    if experts == 0:
        wrong = [name for name, count in (("expert_used_count", used), ("expert_group_count", groups)) if count]
        yield from ((name, "전문가가 없는 모델인데 0이 아닙니다.") for name in wrong)
    elif experts > 1024 or not 0 < used <= experts or groups >= experts:
        yield "expert_count", f"전문가는 {experts:,}명, 쓰는 전문가는 {used:,}명, 묶음은 {groups:,}개로 적혀 있어 서로 맞지 않습니다."
    elif groups > 1 and (experts % groups or not 0 < groups_used < groups):
        why = f"전문가 {experts:,}명을 묶음 {groups:,}개로 나누고 {groups_used:,}개를 쓴다고 적혀 있어 맞지 않습니다."
        yield "expert_group_count", why


def _largest(value: Any) -> int:
    """The largest of one or several whole numbers, read as unsigned ones like llama.cpp does; 0 for anything else."""
    numbers = np.atleast_1d(value) if isinstance(value, (int, np.ndarray)) else np.zeros(0)
    return max((number % 2**32 for number in map(int, numbers)), default=0) if numbers.dtype.kind in "iub" else 0


def _bad_vocabulary(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    model, tokens = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.tokens")
    if isinstance(model, str) and model in ("none", "no_vocab"):
        yield "tokenizer.ggml.model", "토크나이저가 없는 파일입니다."
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return
    # llama.cpp's strings end at the first zero byte, and it gives empty ones a name
    words = {token.partition("\0")[0] or f"[EMPTY_{i}]" for i, token in enumerate(tokens)}
    if len(words) < len(tokens):
        yield "tokenizer.ggml.tokens", f"토큰 {len(tokens):,}개 가운데 {len(tokens) - len(words):,}개가 다른 토큰과 같습니다."
    if isinstance(model, str) and model == "llama" and not words.issuperset(f"<0x{byte:02X}>" for byte in range(256)):
        yield "tokenizer.ggml.tokens", "글자를 바이트로 나누어 적는 토큰 256개(<0x00>부터 <0xFF>까지)가 다 들어 있지 않습니다."


# --- showing ----------------------------------------------------------------------------------------------------------

STYLE = """<style>
.servinglab-gguf { line-height: 1.6; }
.servinglab-gguf details { border: 1px solid currentColor; border-radius: 4px; margin: 4px 0; }
.servinglab-gguf summary { cursor: pointer; padding: 6px 12px; font-weight: bold; }
.servinglab-gguf summary:focus-visible { outline: 3px solid currentColor; border-radius: 4px; }
.servinglab-gguf details > div { overflow-x: auto; padding: 0 12px 12px; }
.servinglab-gguf td, .servinglab-gguf th { color: inherit; overflow-wrap: anywhere; vertical-align: top; }
.servinglab-gguf .left { text-align: left; }
.servinglab-gguf .right { text-align: right; white-space: nowrap; }
</style>"""

ENTRY_HEADS = ("키", "종류", "값")
TENSOR_HEADS = ("텐서", "종류", "모양", "시작 (바이트)", "크기 (바이트)", "가중치당 비트")


def preview(value: Any, most: int = 60) -> str:
    """A value on one line, long ones shortened: an array as its length and first elements."""
    if isinstance(value, (list, np.ndarray)):
        first = ", ".join(preview(item.item() if isinstance(item, np.generic) else item, 20) for item in value[:4])
        return f"{len(value):,}개: [{first}{', …' if len(value) > 4 else ''}]"
    if isinstance(value, str):
        return f"{shown(repr(value[:most])[1:-1], most)}{'…' if len(value) > most else ''}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def cells(tensor: Tensor) -> Row:
    """A tensor's row in the table, under `TENSOR_HEADS`."""
    shape = " × ".join(f"{size:,}" for size in tensor.shape)
    return (
        shown(tensor.name), tensor.kind, shape, f"{tensor.offset:,}", f"{tensor.size:,}", f"{tensor.bits_per_weight:.4g}",
    )


def columns(heads: Row, rows: Sequence[Row], sides: str) -> list[str]:
    """A table in plain letters, a line a row. `sides`: < or > for each column."""
    widths = [max(map(width, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, *rows):
        padded = [(cell, " " * (wide - width(cell)), side) for cell, wide, side in zip(row, widths, sides, strict=True)]
        lines.append("  ".join(cell + pad if side == "<" else pad + cell for cell, pad, side in padded).rstrip())
    return lines


def width(text: str) -> int:
    """Columns that a terminal gives to a text: two for Hangul and the like."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def folded(summary: str, heads: Row, rows: Sequence[Row], sides: str) -> str:
    """A table that opens by a click or by the keyboard, which JupyterLab is told to leave alone."""
    names = [{"<": "left", ">": "right"}[side] for side in sides]
    lines = []
    for tag, row in (("th", heads), *(("td", row) for row in rows)):
        lines.append("".join(f'<{tag} class="{name}">{html.escape(cell)}</{tag}>' for name, cell in zip(names, row, strict=True)))
    table = f"<table><thead><tr>{lines[0]}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines[1:])}</tbody></table>"
    return f'<details><summary data-lm-suppress-shortcuts="true">{html.escape(summary)}</summary><div>{table}</div></details>'


# --- where the bytes are ----------------------------------------------------------------------------------------------

HEADER, OTHER = "머리말과 메타데이터", "그 밖의 것"

GROUPS = {
    "임베딩": r"(token_embd|position_embd|token_types)\b",
    "출력": r"output\b",
    "정규화": r".*norm(_\w+)?\b",
    "어텐션": r"blk\.\d+\.attn_",
    "피드포워드": r"blk\.\d+\.ffn_",
}
"""Parts of a model, and what llama.cpp's names of their tensors begin with; the first that fits is taken."""


def where(file: GGUF) -> dict[str, int]:
    """How many bytes of the file each part takes. Together they are the file's size: padding counts as `OTHER`."""
    sizes = {HEADER: file.data_offset} | dict.fromkeys(GROUPS, 0)
    for tensor in file.tensors:
        group = next((name for name, pattern in GROUPS.items() if re.match(pattern, tensor.name)), OTHER)
        sizes[group] = sizes.get(group, 0) + tensor.size
    rest = file.size - sum(sizes.values())
    sizes[OTHER] = sizes.get(OTHER, 0) + rest
    return {name: size for name, size in sizes.items() if size}
