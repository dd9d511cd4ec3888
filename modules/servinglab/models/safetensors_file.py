"""The header of a safetensors file, read and checked before its tensors are loaded.

Eight bytes tell the length of the header, which is JSON: each tensor's type, shape, and where its bytes lie after the header.
The rules are those of the format's README (huggingface/safetensors): no gaps, no overlaps, no key twice.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servinglab.errors import ModelFileError
from servinglab.models.damage import damaged, require_file, shown

SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}
"""Bytes of a value of each type. The types narrower than a byte are not read here."""

HEADER_LIMIT = 8 * 2**20
"""Bytes of the header: some 80,000 tensors. The format allows 100 MB, which as JSON would take gigabytes of memory."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: `kind` as "F16", `shape` in NumPy's order, `offset` (from the file's beginning) and `size` in bytes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class Safetensors:
    """What a safetensors file says of itself; `metadata` is the text beside the tensors, if any."""

    path: Path
    data_offset: int
    size: int
    metadata: dict[str, str]
    tensors: tuple[Tensor, ...]


class _Twice(ValueError):
    """A key that stands twice in one JSON object."""


def read(path: Path | str) -> Safetensors:
    """The header of a safetensors file. Raises ModelFileError that names the field and its place in the file."""
    path = Path(path).expanduser()
    size = require_file(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, HEADER_LIMIT):
                why = f"머리말이 {length:,}바이트라고 적혀 있는데, 파일은 {size:,}바이트이고 머리말은 {HEADER_LIMIT:,}바이트까지입니다."
                raise damaged(path, "header_size", 0, why)
            raw = file.read(length)
    except OSError as error:
        raise ModelFileError(f"모델 파일을 열 수 없습니다: {path}", str(error), "파일의 권한과 디스크를 확인하세요.") from error
    header = _json(path, raw)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise damaged(path, "__metadata__", _place(raw, "__metadata__"), "이름과 글의 짝을 모은 것이어야 합니다.")
    tensors = tuple(_tensor(path, raw, name, said) for name, said in header.items())
    _require_places(path, raw, size, tensors)
    return Safetensors(path, 8 + length, size, metadata, tensors)


def _json(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise damaged(path, "header", 8 + error.start, "UTF-8 글자가 아닌 바이트가 있습니다.") from error
    except json.JSONDecodeError as error:
        raise damaged(path, "header", 8 + len(error.doc[: error.pos].encode()), f"JSON이 아닙니다 ({error.msg}).") from error
    except _Twice as error:
        raise damaged(path, "header", _place(raw, str(error)), f"같은 이름이 두 번 나옵니다: {shown(str(error))}") from error
    except (RecursionError, ValueError) as error:  # brackets too deep, a number of thousands of digits
        raise damaged(path, "header", 8, f"머리말로 쓸 수 없는 JSON입니다 ({type(error).__name__}).") from error
    if not isinstance(header, dict):
        raise damaged(path, "header", 8, "이름과 값의 짝을 모은 JSON 객체여야 합니다.")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _place(raw: bytes, name: str) -> int:
    """Where a tensor's entry stands, in bytes from the file's beginning; that of the header where it is written otherwise."""
    return 8 + max(raw.find(json.dumps(name, ensure_ascii=False).encode(errors="surrogatepass")), 0)


def _tensor(path: Path, raw: bytes, name: str, said: Any) -> Tensor:
    def fail(field: str, why: str) -> ModelFileError:
        return damaged(path, f"{shown(name)}의 {field}", _place(raw, name), why)

    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise fail("항목", "dtype, shape, data_offsets 세 가지가 있어야 합니다.")
    kind, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(kind, str) or kind not in SIZES:
        raise fail("dtype", f"모르는 종류입니다: {shown(str(kind))}")
    if not _counts(shape) or len(shape) > 8:
        raise fail("shape", "0 이상의 정수를 여덟 개까지 모은 목록이어야 합니다.")
    if not _counts(offsets) or len(offsets) != 2:
        raise fail("data_offsets", "시작과 끝, 두 정수여야 합니다.")
    size = math.prod(shape) * SIZES[kind]
    if offsets[1] - offsets[0] != size:
        raise fail("data_offsets", f"shape와 dtype으로는 {_big(size)}바이트인데 {_big(offsets[1] - offsets[0])}바이트라고 적혀 있습니다.")
    return Tensor(name, kind, tuple(shape), 8 + len(raw) + offsets[0], size)


def _counts(numbers: object) -> bool:
    """Whether this is a list of whole numbers, none below zero nor beyond 64 bits."""
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _big(number: int) -> str:
    return f"{number:,}" if abs(number) < 2**63 else f"{number:.3g}"


def _require_places(path: Path, raw: bytes, size: int, tensors: tuple[Tensor, ...]) -> None:
    """That the tensors fill everything behind the header, each byte once."""
    if not tensors:
        raise damaged(path, "header", 8, "텐서가 하나도 없습니다.")
    in_order = sorted(tensors, key=lambda tensor: (tensor.offset, tensor.size))
    ends = [8 + len(raw), *(tensor.offset + tensor.size for tensor in in_order)]
    for tensor, end in zip(in_order, ends, strict=False):
        if tensor.offset != end:
            why = f"{end:,}바이트에서 시작해야 하는데 {tensor.offset:,}바이트에서 시작합니다. 앞의 텐서와 겹치거나 사이가 빕니다."
            raise damaged(path, f"{shown(tensor.name)}의 data_offsets", _place(raw, tensor.name), why)
    if ends[-1] != size:
        why = f"마지막 텐서가 {ends[-1]:,}바이트에서 끝나는데 파일은 {size:,}바이트입니다."
        raise damaged(path, f"{shown(in_order[-1].name)}의 data_offsets", _place(raw, in_order[-1].name), why)
