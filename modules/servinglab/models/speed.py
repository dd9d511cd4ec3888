"""The speed model: about half a billion random weights, for measuring time.

How fast a model runs depends on its shape, not on the values in it. Its answers are noise, and whatever shows them says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from servinglab.models.convert import finish, new_file, write_header, write_tokenizer

VERSION = "v1"
"""In the file's name: raise it with any change below, so that an old cached file is not taken for the new one."""

CONFIG: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 4096,
    "num_hidden_layers": 20,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "vocab_size": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}


def shapes(c: dict[str, Any] = CONFIG) -> dict[str, tuple[int, int]]:
    """Every matrix of the model, (rows, columns)."""
    hidden, inner, kv = c["hidden_size"], c["intermediate_size"], c["num_key_value_heads"] * c["head_dim"]
    matrices = {"token_embd": (c["vocab_size"], hidden)}
    for i in range(c["num_hidden_layers"]):
        matrices |= {
            f"blk.{i}.attn_q": (hidden, hidden),
            f"blk.{i}.attn_k": (kv, hidden),
            f"blk.{i}.attn_v": (kv, hidden),
            f"blk.{i}.attn_output": (hidden, hidden),
            f"blk.{i}.ffn_gate": (inner, hidden),
            f"blk.{i}.ffn_up": (inner, hidden),
            f"blk.{i}.ffn_down": (hidden, inner),
        }
    return matrices


PARAMETERS = sum(rows * columns for rows, columns in shapes().values())
BYTES = PARAMETERS * 34 // 32
"""Size of the file: Q8_0 stores 32 weights in 34 bytes."""


def random_rows(columns: int, count: int = 256) -> NDArray[np.uint8]:
    """`count` rows of finite Q8_0 weights (count, columns / 32 * 34), seeded, as small as trained ones."""
    values = np.random.default_rng(0).standard_normal((count, columns), dtype=np.float32) / np.sqrt(columns)
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)


def write(path: Path, tokenizer: Path) -> None:
    """Write the model to `path` with the tokenizer of the folder `tokenizer`.

    One block of random rows is repeated to fill every matrix: generating half a billion numbers would take a minute.
    Raises NotEnoughRoom where the disk fills up.
    """
    kind = gguf.GGMLQuantizationType.Q8_0
    block = {columns: random_rows(columns) for columns in {columns for _, columns in shapes().values()}}
    whole: dict[tuple[int, int], NDArray[np.uint8]] = {}
    with new_file(path) as part:
        writer = gguf.GGUFWriter(part, "llama")
        write_header(writer, CONFIG, "speed (random weights)", gguf.LlamaFileType.MOSTLY_Q8_0)
        writer.add_description("Random weights for measuring time. The answers mean nothing.")
        write_tokenizer(writer, tokenizer)
        for name, (rows, columns) in shapes().items():
            if (rows, columns) not in whole:
                whole[rows, columns] = np.tile(block[columns], (rows // 256, 1))
            writer.add_tensor(f"{name}.weight", whole[rows, columns], raw_dtype=kind)
        ones = np.ones(CONFIG["hidden_size"], dtype=np.float32)
        for i in range(CONFIG["num_hidden_layers"]):
            writer.add_tensor(f"blk.{i}.attn_norm.weight", ones)
            writer.add_tensor(f"blk.{i}.ffn_norm.weight", ones)
        writer.add_tensor("output_norm.weight", ones)
        finish(writer)
