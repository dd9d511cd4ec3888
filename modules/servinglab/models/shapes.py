"""The shapes of models: what their memory and speed depend on, and which tensors follow from it. The list is `data/models.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, Field

from servinglab.curriculum import Strict, checked, read
from servinglab.errors import SettingError
from servinglab.paths import DATA

Kind = TypeVar("Kind")


class Source(Strict):
    """Where a figure stands. `checked` is whether somebody has opened the address since."""

    model_config = ConfigDict(frozen=True)
    name: str
    url: str = Field(pattern=r"^https://")
    checked: bool


class HubFile(Strict):
    """A GGUF file of a model on the hub, for `servinglab pull`. It must be one that needs no login.

    `checked` is whether somebody has opened the repository's page since and found the file and its licence there.
    """

    model_config = ConfigDict(frozen=True)
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    file: str = Field(pattern=r"^[\w.-]+\.gguf$")
    licence: str
    checked: bool


class Shape(Strict):
    """The figures of a model that memory and speed depend on; the values of its weights do not matter.

    Attributes:
        architecture: what llama.cpp calls it in a GGUF file; it tells which small tensors there are beside the matrices.
        parameters: weights in all, embeddings too.
        tied: whether input and output share one embedding table.
        context: longest context in tokens that the model was made for.
        window: tokens that a layer with a sliding window looks back; None where every layer looks back at everything.
        full_layers: layers without a window, where some have one.
        experts: feed-forwards side by side in a layer, of which a token uses `experts_used`; 1 in a dense model.
        gguf: where `servinglab pull` gets it from; None where it does not.
        memory_only: why no random model of this shape may be written for measuring speed; None where one may.
    """

    model_config = ConfigDict(frozen=True)
    id: str
    name: str
    architecture: str = "llama"
    parameters: int = Field(gt=0)
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_size: int = Field(gt=0)
    feed_forward: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    tied: bool
    context: int = Field(gt=0)
    window: int | None = None
    full_layers: int | None = None
    experts: int = Field(default=1, gt=0)
    experts_used: int = Field(default=1, gt=0)
    memory_only: str | None = None
    source: Source | None = None
    gguf: HubFile | None = None

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Every matrix by its name in a GGUF file, (rows, columns). The experts of a layer stand as one, below each other."""
        hidden, inner = self.hidden, self.feed_forward
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        found = {"token_embd.weight": (self.vocabulary, hidden)}
        if not self.tied:
            found["output.weight"] = (self.vocabulary, hidden)
        many = "_exps" if self.experts > 1 else ""
        for i in range(self.layers):
            found |= {
                f"blk.{i}.attn_q.weight": (queries, hidden),
                f"blk.{i}.attn_k.weight": (keys, hidden),
                f"blk.{i}.attn_v.weight": (keys, hidden),
                f"blk.{i}.attn_output.weight": (hidden, queries),
                f"blk.{i}.ffn_gate{many}.weight": (self.experts * inner, hidden),
                f"blk.{i}.ffn_up{many}.weight": (self.experts * inner, hidden),
                f"blk.{i}.ffn_down{many}.weight": (self.experts * hidden, inner),
            }
        return found

    def vectors(self) -> dict[str, int]:
        """Every other tensor by its name, with its number of weights: norms, biases. Engines keep them in 32 bits."""
        found = {"output_norm.weight": self.hidden}
        for i in range(self.layers):
            found |= {f"blk.{i}.{name}": size for name, size in self.layer_vectors().items()}
        return found

    def layer_vectors(self) -> dict[str, int]:
        """What `vectors` has in every layer, by llama.cpp's names (src/models/)."""
        norms = {"attn_norm.weight": self.hidden, "ffn_norm.weight": self.hidden}
        heads = {"attn_q_norm.weight": self.head_size, "attn_k_norm.weight": self.head_size}
        match self.architecture:
            case "qwen3":
                return norms | heads
            case "gemma3":
                after = {"post_attention_norm.weight": self.hidden, "post_ffw_norm.weight": self.hidden}
                return norms | heads | after
            case "gpt-oss":
                return self._gpt_oss_vectors()
            case _:
                return norms

    def _gpt_oss_vectors(self) -> dict[str, int]:
        queries, keys, inner = self.heads * self.head_size, self.kv_heads * self.head_size, self.experts * self.feed_forward
        return {
            "attn_norm.weight": self.hidden, "post_attention_norm.weight": self.hidden, "attn_sinks.weight": self.heads,
            "attn_q.bias": queries, "attn_k.bias": keys, "attn_v.bias": keys, "attn_output.bias": self.hidden,
            "ffn_gate_inp.weight": self.experts * self.hidden, "ffn_gate_inp.bias": self.experts,
            "ffn_gate_exps.bias": inner, "ffn_up_exps.bias": inner, "ffn_down_exps.bias": self.experts * self.hidden,
        }


class _Shapes(Strict):
    shapes: list[Shape]


@cache
def shapes(path: Path = DATA / "models.yaml") -> dict[str, Shape]:
    """The known models by id, as "qwen3-4b". Raises SettingError that names file and field."""
    return {shape.id: shape for shape in checked(path, _Shapes, read(path)).shapes}


def find_shape(shape: Shape | str) -> Shape:
    return shape if isinstance(shape, Shape) else known("shape", shape, shapes())


WORDS = {"shape": "모델", "model": "모델", "machine": "장비", "engine": "엔진", "kind": "타입", "bits": "타입", "kv": "KV 캐시 타입"}
"""What a learner calls the thing that an argument names."""


def known(what: str, name: object, among: dict[str, Kind]) -> Kind:
    """The entry called `name`. Raises SettingError that lists those there are."""
    if not isinstance(name, str) or name not in among:
        todo = f"아는 이름 가운데 하나를 따옴표로 감싸 적으세요: {', '.join(among)}"
        raise SettingError(f"모르는 {WORDS[what]} 이름입니다: {name!r}", "목록에 없거나 철자가 다릅니다.", todo)
    return among[name]
