"""Quantization by hand: Q8_0 and Q4_0 in both directions, and what Q4_K and Q6_K stand for, in NumPy.

The layouts are those of ggml's `ggml-common.h`, the arithmetic that of `quantize_row_*_ref` and `dequantize_row_*` in its
`ggml-quants.c` (llama.cpp as in llama-cpp-python 0.3.36). Q8_0 and Q4_0 agree bit for bit with what `llama-quantize` writes without an importance
matrix: measured on x86-64 with Linux and GCC. Blocks whose weights are all below 4e-37 are left out of that promise, because
C leaves open what becomes of them.

Everywhere a matrix is (rows, columns), its blocks are bytes (rows, columns / weights a block * bytes a block).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from servinglab.errors import SettingError

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]

Q8_0 = np.dtype([("d", "<f2"), ("q", "i1", 32)])
"""32 weights in 34 bytes: weight = d * q."""

Q4_0 = np.dtype([("d", "<f2"), ("q", "u1", 16)])
"""32 weights in 18 bytes: weight = d * (q - 8). The low halves of the bytes are weights 0-15, the high ones 16-31."""

Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("q", "u1", (4, 32))])
"""256 weights in 144 bytes, 8 groups of 32: weight = (d * scale) * q - dmin * minimum, scale and minimum in 6 bits each."""

Q6_K = np.dtype([("low", "u1", (2, 64)), ("high", "u1", (2, 32)), ("scales", "i1", 16), ("d", "<f2")])
"""256 weights in 210 bytes, 16 groups of 16: weight = (d * scale) * (q - 32), four bits of q in `low` and two in `high`."""

NEARLY_HALF = np.nextafter(np.float32(0.5), np.float32(0))

PIECE = 1 << 16
"""Weights that are quantized at a time."""

FUSED = platform.machine() == "aarch64"
"""Whether the compiler makes one rounding of Q4_0's multiplication and addition. GCC does on Linux for ARM, where every CPU
has the instruction; for x86-64 llama.cpp compiles this file without it, and Clang (macOS) keeps the two apart."""


@np.errstate(over="ignore", invalid="ignore")  # of weights that are no numbers `as_bytes` tells
def quantize_q8_0(x: Array) -> Bytes:
    """Q8_0 of a matrix (rows, columns): the largest weight of each 32 becomes 127 or -127.

    Raises SettingError for another type or shape, and for values that no scale can hold.
    """
    blocks, pairs = pieces(x, Q8_0)
    for x, b in pairs:                                                             # (rows, blocks, 32), (rows, blocks)
        d = np.abs(x).max(axis=-1) / np.float32(127)
        steps = x * inverse(d)
        steps += np.copysign(NEARLY_HALF, steps)  # and cut off by the cast: half away from zero, as C's roundf
        b["d"], b["q"] = d, steps.astype(np.int8)
    return as_bytes(blocks)


@np.errstate(over="ignore", invalid="ignore")
def quantize_q4_0(x: Array, fused: bool = FUSED) -> Bytes:
    """Q4_0 of a matrix (rows, columns): the weight of each 32 that is farthest from zero becomes -8, whatever its sign.

    `fused` rounds once where the other way rounds twice; a few weights in a million differ by one step.
    Raises SettingError for another type or shape, and for values that no scale can hold.
    """
    blocks, pairs = pieces(x, Q4_0)
    for x, b in pairs:                                                             # (rows, blocks, 32), (rows, blocks)
        farthest = np.abs(x).argmax(axis=-1, keepdims=True)
        d = (np.take_along_axis(x, farthest, axis=-1)[..., 0] + 0) / np.float32(-8)  # + 0 makes 0 of -0, where C starts
        if fused:
            steps = (x.astype(np.float64) * inverse(d) + 8.5).astype(np.float32)  # float64 holds the product exactly
        else:
            steps = x * inverse(d)
            steps += np.float32(8.5)
        q = np.minimum(steps.astype(np.uint8), 15)
        b["d"], b["q"] = d, q[..., :16] | q[..., 16:] << 4
    return as_bytes(blocks)


def dequantize_q8_0(blocks: Bytes) -> Array:
    """The weights (rows, columns) of Q8_0 blocks. Raises SettingError for another type or shape."""
    b = of_kind(blocks, Q8_0)
    return in_rows(scale(b["d"]) * b["q"])


def dequantize_q4_0(blocks: Bytes) -> Array:
    """The weights (rows, columns) of Q4_0 blocks. Raises SettingError for another type or shape."""
    b = of_kind(blocks, Q4_0)
    q = np.concatenate([b["q"] & 15, b["q"] >> 4], axis=-1).astype(np.int8) - 8    # (rows, blocks, 32)
    return in_rows(scale(b["d"]) * q)


def dequantize_q4_k(blocks: Bytes) -> Array:
    """The weights (rows, columns) of Q4_K blocks. Raises SettingError for another type or shape."""
    b = of_kind(blocks, Q4_K)
    first, second, third = np.split(b["scales"], 3, axis=-1)                       # (rows, blocks, 4) each
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=-1)   # (rows, blocks, 8)
    minima = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=-1)
    q = np.stack([b["q"] & 15, b["q"] >> 4], axis=-2)                              # (rows, blocks, 4, 2, 32)
    q = q.reshape(*scales.shape, 32)
    return in_rows((scale(b["d"]) * scales)[..., None] * q - (scale(b["dmin"]) * minima)[..., None])


def dequantize_q6_k(blocks: Bytes) -> Array:
    """The weights (rows, columns) of Q6_K blocks. Raises SettingError for another type or shape."""
    b = of_kind(blocks, Q6_K)
    low = np.stack([b["low"] & 15, b["low"] >> 4], axis=-2)                        # (rows, blocks, 2, 2, 64)
    high = np.stack([b["high"] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-2)   # (rows, blocks, 2, 4, 32)
    q = (low.reshape(high.shape) | high << 4).astype(np.int8) - 32
    q = q.reshape(*b["scales"].shape, 16)                                          # (rows, blocks, 16, 16)
    return in_rows((scale(b["d"]) * b["scales"])[..., None] * q)


# --- bytes and numbers ------------------------------------------------------------------------------------------------


def pieces(x: Array, kind: np.dtype[np.void]) -> tuple[NDArray[np.void], Iterator[tuple[Array, NDArray[np.void]]]]:
    """Empty blocks (rows, blocks) for a matrix, and both in pieces of some rows, weights as (rows, blocks, 32).

    Pieces, because what is computed on the way then stays in the CPU's cache: a third faster on a large matrix.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim != 2 or x.size == 0 or x.shape[1] % 32:
        raise SettingError(
            f"양자화할 수 없는 값입니다: {described(x)}",
            "float32 행렬이어야 하고, 한 행의 길이는 32의 배수여야 합니다. 가중치 32개가 한 블록이기 때문입니다.",
            "예: weights.astype(np.float32).reshape(-1, 32)",
        )
    rows, columns = x.shape
    blocks = np.empty((rows, columns // 32), kind)
    step = max(1, PIECE // columns)
    weights = x.reshape(rows, -1, 32)
    return blocks, ((weights[i : i + step], blocks[i : i + step]) for i in range(0, rows, step))


def in_rows(weights: Array) -> Array:
    """Weights (rows, blocks, …) as a matrix (rows, columns)."""
    return weights.reshape(weights.shape[0], -1)


def of_kind(blocks: Bytes, kind: np.dtype[np.void]) -> NDArray[np.void]:
    """Bytes (rows, bytes a row) as blocks (rows, blocks) with named fields."""
    size = kind.itemsize
    if not isinstance(blocks, np.ndarray) or blocks.dtype != np.uint8 or blocks.ndim != 2 or blocks.size == 0 or blocks.shape[1] % size:
        raise SettingError(
            f"블록으로 읽을 수 없는 값입니다: {described(blocks)}",
            f"uint8 배열(행, 한 행의 바이트 수)이어야 하고, 한 행의 바이트 수는 {size}의 배수여야 합니다. 블록 하나가 {size}바이트이기 때문입니다.",
            "텐서의 형식에 맞는 함수를 골랐는지 확인하세요.",
        )
    return np.ascontiguousarray(blocks).view(kind)


def described(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def as_bytes(blocks: NDArray[np.void]) -> Bytes:
    """Blocks (rows, blocks) as bytes. A NaN or an infinity among the weights has come to be one of its block's scale."""
    require_finite(blocks["d"])
    return blocks.view(np.uint8)


def scale(stored: NDArray[np.float16]) -> Array:
    """Stored scales (rows, blocks) as float32 (rows, blocks, 1)."""
    require_finite(stored)
    return stored.astype(np.float32)[..., None]


def require_finite(scales: NDArray[np.float16]) -> None:
    bad = np.argwhere(~np.isfinite(scales))
    if len(bad):
        row, block = bad[0].tolist()
        raise SettingError(
            f"{row}행 {block}번 블록의 스케일이 수가 아니거나 너무 큽니다.",
            "가중치에 NaN이나 무한대가 있거나, 스케일이 16비트 실수의 한계(65504)를 넘었습니다.",
            "파일이 손상되지 않았는지, 다른 형식의 블록을 읽지 않았는지 확인하세요.",
        )


def inverse(d: Array) -> Array:
    """1 / d as (rows, blocks, 1), and 0 where d is 0."""
    return np.divide(1, d, out=np.zeros_like(d), where=d != 0)[..., None]
