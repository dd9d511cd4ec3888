"""Speed models: random weights in the shape of a real model and in any block type, for measuring time.

How fast a model runs depends on its shape and its block type, not on the values in it. Its answers are noise, and whatever
shows them says so.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import psutil
from numpy.typing import NDArray

from servinglab.errors import NotEnoughRoom, SettingError
from servinglab.models.convert import new_file, write_header, write_tokenizer
from servinglab.models.mixes import BLOCKS, block_bytes, fitting
from servinglab.models.shapes import Shape, find_shape, known
from servinglab.paths import TUTOR

VERSION = "v2"
"""In the file's name: raise it with any change below, so that an old cached file is not taken for the new one."""

ROWS = 256
"""Random rows that are made; a matrix repeats them. Half a billion random numbers would take a minute."""

ARCHITECTURES = ("llama", "qwen3", "gemma3")


@dataclass(frozen=True)
class Layout:
    """Where the scales lie in a block (ggml-common.h), so that random bytes around them become finite weights.

    Attributes:
        spread: standard deviation of the weights where every scale is 1. A test measures it.
        scales: for each half-precision scale its offset in bytes, and its factor: a minimum must balance what it is taken from.
    """

    spread: float
    scales: dict[int, float]


LAYOUTS = {
    "Q8_0": Layout(74.0, {0: 1}),
    "Q6_K": Layout(1366, {208: 1}),
    "Q5_K": Layout(527, {0: 1, 2: 15.5}),
    "Q5_1": Layout(9.23, {0: 1, 2: -15.5}),
    "Q5_0": Layout(9.23, {0: 1}),
    "Q4_K": Layout(258, {0: 1, 2: 7.5}),
    "Q4_1": Layout(4.61, {0: 1, 2: -7.5}),
    "Q4_0": Layout(4.61, {0: 1}),
    "IQ4_NL": Layout(67.1, {0: 1}),
    "IQ4_XS": Layout(1247, {0: 1}),
    "Q3_K": Layout(43.3, {108: 1}),
    "IQ3_S": Layout(140, {0: 1}),
    "IQ3_XXS": Layout(142, {0: 1}),
    "Q2_K": Layout(13.9, {80: 1, 82: 1.5}),
    "IQ2_S": Layout(56.3, {0: 1}),
    "IQ2_XS": Layout(55.9, {0: 1}),
    "IQ2_XXS": Layout(53.2, {0: 1}),
    "IQ1_S": Layout(7.22, {0: 1}),
}

MXFP4_SPREAD = 5.86
"""As `Layout.spread`; this type's scale is no half but one byte, an exponent of two that stands at 128 for 1."""

KINDS = {kind: kind.lower() for kind in ("F32", "F16", "BF16", *LAYOUTS, "MXFP4")}
"""Every block type that can be written, with its part of a file's name."""


def random_rows(kind: str, columns: int) -> NDArray[np.uint8]:
    """`ROWS` rows of finite weights, seeded, as small as trained ones (ROWS, bytes a row)."""
    random, wanted = np.random.default_rng(0), 1 / np.sqrt(columns)
    if kind in ("F32", "F16", "BF16"):
        values = random.standard_normal((ROWS, columns), dtype=np.float32) * np.float32(wanted)
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]).view(np.uint8)
    weights, size = BLOCKS[kind]
    blocks = random.integers(0, 256, (ROWS * columns // weights, size), dtype=np.uint8)
    if kind == "MXFP4":
        blocks[:, 0] = 128 + round(np.log2(wanted / MXFP4_SPREAD))
    else:
        for offset, factor in LAYOUTS[kind].scales.items():
            blocks[:, offset : offset + 2] = np.array([factor * wanted / LAYOUTS[kind].spread], np.float16).view(np.uint8)
    return blocks.reshape(ROWS, -1)


def size(shape: Shape, kind: str) -> int:
    """Bytes of all weights where every matrix has the block type `kind`, or what takes its place in rows of another length."""
    matrices = sum(block_bytes(fitting(kind, columns), rows, columns) for rows, columns in shape.matrices().values())
    return matrices + 4 * sum(shape.vectors().values())


def write(path: Path | str, shape: Shape | str, kind: str = "Q8_0", tokenizer: Path = TUTOR) -> None:
    """Write a random model of the shape `shape` to `path`, its matrices in the block type `kind` ("Q4_K", not "Q4_K_M").

    It has the tokenizer of the folder `tokenizer`; placeholders fill its vocabulary up to the shape's. Little memory is used,
    whatever the shape.
    Raises SettingError for what is unknown, NotEnoughRoom before writing where disk or memory would not do.
    """
    path, shape = Path(path).expanduser(), find_shape(shape)
    known("kind", kind, KINDS)
    require_dense(shape)
    require_room(path, size(shape, kind))
    matrices, vectors = shape.matrices(), shape.vectors()
    kinds = {columns: fitting(kind, columns) for _, columns in matrices.values()}
    blocks = {columns: random_rows(fit, columns) for columns, fit in kinds.items()}
    with new_file(path) as part:
        writer = described(part, shape, kind, tokenizer)
        for name, (rows, columns) in matrices.items():
            fit = gguf.GGMLQuantizationType[kinds[columns]]
            row_bytes = blocks[columns].shape[1]
            writer.add_tensor_info(name, (rows, row_bytes), np.dtype(np.uint8), rows * row_bytes, fit)
        for name, length in vectors.items():
            writer.add_tensor_info(name, (length,), np.dtype(np.float32), 4 * length)
        write_front(writer)
        with part.open("ab") as file:
            for rows, columns in matrices.values():
                repeat(file, blocks[columns], rows)
            for length in vectors.values():
                repeat(file, np.ones((1, length), np.float32), 1)


def described(part: Path, shape: Shape, kind: str, tokenizer: Path) -> gguf.GGUFWriter:
    """A writer that has all the metadata."""
    writer = gguf.GGUFWriter(part, shape.architecture)
    write_header(writer, config(shape), f"{shape.id} (random weights)", file_type(kind))
    writer.add_description("Random weights for measuring time. The answers mean nothing.")
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    if shape.window is not None:
        writer.add_sliding_window(shape.window)
    write_tokenizer(writer, tokenizer)
    fill_up(writer, shape.vocabulary)
    return writer


def config(shape: Shape) -> dict[str, Any]:
    """The shape in the names of Transformers. RoPE's base does not matter for speed."""
    return {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": shape.context,
        "vocab_size": shape.vocabulary,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }


def file_type(kind: str) -> gguf.LlamaFileType:
    """What `llama-bench` calls the file; of a mix the smallest, since nothing is mixed here."""
    known_types = gguf.LlamaFileType.__members__
    names = (f"MOSTLY_{kind}", f"MOSTLY_{kind}_S", f"MOSTLY_{kind}_MOE", f"ALL_{kind}")
    return next(known_types[name] for name in names if name in known_types)


def fill_up(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    """Add placeholders to the tokenizer. They are ordinary tokens, so that a stream shows a piece for each."""
    keys = gguf.Keys.Tokenizer
    tokens, types = (writer.kv_data[0][key].value for key in (keys.LIST, keys.TOKEN_TYPE))
    lacking = vocabulary - len(tokens)
    if lacking < 0:
        raise SettingError(
            f"어휘가 너무 작습니다: {vocabulary:,}개", f"튜터의 토크나이저에만 토큰이 {len(tokens):,}개 있습니다.", "더 큰 모양을 고르세요."
        )
    tokens += [f"<random-{i}>" for i in range(lacking)]
    types += [gguf.TokenType.NORMAL] * lacking


def write_front(writer: gguf.GGUFWriter) -> None:
    """Write what stands before the tensors, and close also where the disk is full."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def repeat(file: BinaryIO, block: NDArray[Any], rows: int) -> None:
    """Append a tensor of `rows` rows that repeats the rows of `block`, aligned as GGUF wants it."""
    file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
    whole, rest = divmod(rows, len(block))
    data = block.tobytes()
    for _ in range(whole):
        file.write(data)
    file.write(block[:rest].tobytes())


def require_dense(shape: Shape) -> None:
    """Raise SettingError for a shape whose speed a random model of ours would not show."""
    if shape.memory_only is not None or shape.architecture not in ARCHITECTURES:
        why = shape.memory_only or f"이 과정이 쓸 줄 아는 구조({', '.join(ARCHITECTURES)})가 아닙니다: {shape.architecture}"
        raise SettingError(f"{shape.name} 모양으로는 속도 모델을 만들지 않습니다.", why, "memory.shapes()에 있는 다른 모양을 고르세요.")


def require_room(path: Path, size: int) -> None:
    """Raise NotEnoughRoom unless disk (for the file) and memory (to run it) have `size` bytes and some to spare."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    free, memory = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    for have, what, todo in (
        (free, f"{folder} 폴더가 있는 디스크", "자리를 비우거나 다른 폴더를 고르세요. 캐시 폴더는 환경 변수 SERVINGLAB_CACHE로 정합니다."),
        (memory, "메모리", "다른 프로그램이나 쓰지 않는 노트북의 커널을 끄고 다시 실행하세요."),
    ):
        if have < size * 1.3:
            raise NotEnoughRoom(
                f"{what}에 자리가 모자라 속도 모델을 만들지 않았습니다.",
                f"{size * 1.3 / 1e9:.1f} GB가 필요한데 {have / 1e9:.1f} GB가 남아 있습니다.",
                todo,
            )
