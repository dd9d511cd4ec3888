"""Which block type every tensor of a GGUF file has, by the name of the file's type: "Q4_K_M" is a mix.

The rules are those of llama.cpp's `src/llama-quant.cpp` as in llama-cpp-python 0.3.36, without an importance matrix, except
for IQ3_XXS, which demands one. A test holds them against the files that `llama-quantize` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import gguf

from servinglab.models.shapes import Shape, known

BLOCKS: dict[str, tuple[int, int]] = {kind.name: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
"""Weights in a block and bytes of it, by ggml's name of the block type."""


def block_bits(kind: str) -> float:
    """Bits per weight of a block type: 4.5 for "Q4_0", 18 bytes for 32 weights. Raises SettingError for an unknown name."""
    weights, size = known("kind", kind, BLOCKS)
    return size * 8 / weights


def block_bytes(kind: str, rows: int, columns: int) -> int:
    """Bytes of a matrix. `columns` must be a multiple of the block."""
    weights, size = BLOCKS[kind]
    return rows * columns // weights * size


SMALLER = {
    **dict.fromkeys(("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}
"""What `llama-quantize` takes instead where the rows are no multiples of 256, as those of Gemma 3 1B with 1152 columns."""


def fitting(kind: str, columns: int) -> str:
    """`kind`, or what takes its place in rows of `columns` weights."""
    for fit in (kind, SMALLER.get(kind, kind)):
        if columns % BLOCKS[fit][0] == 0:
            return fit
    return "F16"


@dataclass(frozen=True)
class Place:
    """Where a matrix stands: its layer of how many, and whether at least four query heads share a KV head."""

    layer: int
    layers: int
    shared: bool


Where = Callable[[Place], bool]


def everywhere(at: Place) -> bool:
    return True


def shared(at: Place) -> bool:
    return at.shared


def ends(at: Place) -> bool:
    """Layers that get more bits in the mixes called M: the first and last eighth, and every third between."""
    eighth = at.layers // 8
    return at.layer < eighth or at.layer >= 7 * at.layers // 8 or (at.layer - eighth) % 3 == 2


def first(count: int) -> Where:
    return lambda at: at.layer < count


def first_share(share: int) -> Where:
    """The first `1 / share` of the layers."""
    return lambda at: at.layer < at.layers // share


@dataclass(frozen=True)
class Mix:
    """A file's type: what most matrices get, and which get something else.

    Attributes:
        base: the block type of most matrices.
        output: that of the matrix which makes the scores, in a tied model the embedding table.
        embedding: that of an embedding table of its own; None for `base`.
        rules: by role, as "attn_v", places and what they get; the first that fits counts.
    """

    base: str
    output: str = "Q6_K"
    embedding: str | None = None
    rules: dict[str, list[tuple[Where, str]]] = field(default_factory=dict)


MIXES = {
    **{kind: Mix(kind, kind) for kind in ("F32", "F16", "BF16", "Q8_0")},
    "Q6_K": Mix("Q6_K"),
    "Q5_K_M": Mix("Q5_K", rules={"attn_v": [(ends, "Q6_K")], "ffn_down": [(ends, "Q6_K")]}),
    "Q5_K_S": Mix("Q5_K"),
    **{kind: Mix(kind) for kind in ("Q5_1", "Q5_0", "Q4_1", "Q4_0")},
    "Q4_K_M": Mix("Q4_K", rules={"attn_v": [(ends, "Q6_K")], "ffn_down": [(ends, "Q6_K")]}),
    "Q4_K_S": Mix("Q4_K", rules={"attn_v": [(first(4), "Q5_K")], "ffn_down": [(first_share(8), "Q5_K")]}),
    **{
        kind: Mix(kind, rules={"attn_v": [(shared, "Q5_K")], "ffn_down": [(first_share(8), "Q5_K")]})
        for kind in ("IQ4_NL", "IQ4_XS")
    },
    "Q3_K_L": Mix("Q3_K", rules={role: [(everywhere, "Q5_K")] for role in ("attn_v", "attn_output", "ffn_down")}),
    "Q3_K_M": Mix("Q3_K", rules={
        "attn_v": [(first(2), "Q5_K"), (everywhere, "Q4_K")],
        "attn_output": [(everywhere, "Q4_K")],
        "ffn_down": [(first_share(16), "Q5_K"), (everywhere, "Q4_K")],
    }),
    "Q3_K_S": Mix("Q3_K"),
    "IQ3_M": Mix("IQ3_S", rules={
        "attn_v": [(everywhere, "Q4_K")], "attn_output": [(everywhere, "Q4_K")], "ffn_down": [(first_share(8), "Q4_K")],
    }),
    "IQ3_XXS": Mix("IQ3_XXS", "Q5_K", "IQ3_S", {
        "attn_q": [(everywhere, "IQ2_S")],
        "attn_k": [(everywhere, "IQ2_S")],
        "attn_v": [(shared, "Q4_K")],
        "attn_output": [(everywhere, "IQ3_S")],
    }),
    "Q2_K": Mix("Q2_K", rules={
        "attn_v": [(shared, "Q4_K"), (everywhere, "Q3_K")],
        "attn_output": [(everywhere, "Q3_K")],
        "ffn_down": [(everywhere, "Q3_K")],
    }),
    "MXFP4_MOE": Mix("Q8_0", "Q8_0", rules={
        role: [(everywhere, "MXFP4")] for role in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    }),
}
"""By the name that `llama-quantize` takes, from many bits to few; the last is how gpt-oss is handed out."""


@cache
def tensor_types(shape: Shape, kind: str) -> dict[str, str]:
    """The block type of every matrix by its name, in a file of type `kind`. Raises SettingError for an unknown one."""
    mix = known("kind", kind, MIXES)
    return {name: fitting(wanted(shape, mix, name), columns) for name, (_, columns) in shape.matrices().items()}


def wanted(shape: Shape, mix: Mix, name: str) -> str:
    """The type of one matrix, wherever its rows would allow it."""
    if name == "output.weight" or (name == "token_embd.weight" and shape.tied):
        # Rows that do not suit the base get Q8_0 at once, whatever the mix would have taken.
        return mix.output if fitting(mix.base, shape.hidden) == mix.base else "Q8_0"
    if name == "token_embd.weight":
        return mix.embedding or mix.base
    _, layer, role, _ = name.split(".")
    at = Place(int(layer), shape.layers, shape.heads >= 4 * shape.kv_heads)
    rules = mix.rules.get(role) or mix.rules.get(role.removesuffix("_exps"), [])
    found = next((kind for where, kind in rules if where(at)), mix.base)
    giant = role == "attn_v" and shape.layers == 80 and shape.architecture == "llama"  # it is small beside the rest of a 70B
    return "Q5_K" if giant and found in ("Q3_K", "Q4_K") else found


@cache
def file_bytes(shape: Shape, kind: str) -> int:
    """Bytes of the tensors of a file of type `kind`; metadata and tokenizer come on top, a few MB at most."""
    types, matrices = tensor_types(shape, kind), shape.matrices()
    return 4 * sum(shape.vectors().values()) + sum(block_bytes(types[name], *matrices[name]) for name in matrices)


def unread(shape: Shape) -> dict[str, float]:
    """The share of a matrix that one token leaves alone: of an input table of its own all but a row, of the experts those at rest."""
    found = {} if shape.tied else {"token_embd.weight": 1.0}
    at_rest = 1 - shape.experts_used / shape.experts
    return found | {name: at_rest for name in shape.matrices() if "_exps." in name}


def unread_weights(shape: Shape) -> float:
    """Weights that one token does not read."""
    matrices = shape.matrices()
    return sum(share * matrices[name][0] * matrices[name][1] for name, share in unread(shape).items())


def unread_bytes(shape: Shape, kind: str) -> float:
    """Their bytes in a file of type `kind`."""
    types, matrices = tensor_types(shape, kind), shape.matrices()
    return sum(share * block_bytes(types[name], *matrices[name]) for name, share in unread(shape).items())
