"""From `safetensors` + tokenizer to GGUF, with the `gguf` package. Lesson 02 takes this apart."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import gguf
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import load_file

from servinglab.curriculum import WHY
from servinglab.errors import ModelFileError, SettingError, disk_errors
from servinglab.models import safetensors_file
from servinglab.models.damage import damaged, shown
from servinglab.models.safetensors_file import Safetensors

FILE_TYPES = {
    "F16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "Q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}

_LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}

Count = Annotated[int, Field(gt=0, lt=2**31)]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Kind = TypeVar("Kind", bound=BaseModel)


class _Part(BaseModel):
    """What is read of a JSON file; types are taken as they are written."""

    model_config = ConfigDict(strict=True)


class Config(_Part):
    """What the converter needs of `config.json`. llama.cpp knows no more than 512 layers."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Annotated[int, Field(gt=0, le=512)]
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Annotated[int, Field(gt=0, lt=2**31, multiple_of=2)]
    max_position_embeddings: Count
    vocab_size: Count
    rms_norm_eps: Ratio
    rope_theta: Ratio


class _Vocabulary(_Part):
    vocab: dict[str, int]
    merges: list[tuple[str, str]]


class _Special(_Part):
    id: int
    content: str


class _Tokenizer(_Part):
    model: _Vocabulary
    added_tokens: list[_Special]


class _Settings(_Part):
    eos_token: str
    pad_token: str
    chat_template: str


def part(path: Path, kind: type[Kind]) -> Kind:
    """A JSON file of a model folder. Raises ModelFileError that names file and field."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise unusable(path, str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = shown(".".join(str(name) for name in first["loc"]) or "JSON")
        raise unusable(path, f"{field}: {WHY.get(first['type'], first['msg'])}") from error


def unusable(path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"모델 폴더의 {path.name} 파일을 쓸 수 없습니다: {path}", why, "모델을 다시 받으세요. 튜터라면 git checkout data/tutor 로 되살립니다."
    )


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Transformers tensor: model.layers.3.mlp.up_proj.weight -> blk.3.ffn_up.weight."""
    words = name.removeprefix("model.").removesuffix(".weight")
    if words.startswith("layers."):
        _, index, part = words.split(".", 2)
        return f"blk.{index}.{_LAYER_NAMES[part]}.weight"
    return {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[words]


def interleave(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """Reorder Q or K rows: Transformers turns the pairs (i, i + d/2) by RoPE, llama.cpp the neighbours (2i, 2i + 1)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_header(writer: gguf.GGUFWriter, config: dict[str, Any], name: str, file_type: gguf.LlamaFileType) -> None:
    """Shape and arithmetic of a Llama model (keys of the GGUF specification)."""
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """Vocabulary, merges, special tokens and the chat template. Raises ModelFileError where they do not fit together."""
    tokenizer, settings = part(folder / "tokenizer.json", _Tokenizer), part(folder / "tokenizer_config.json", _Settings)
    special = {entry.content: entry.id for entry in tokenizer.added_tokens}
    ids = tokenizer.model.vocab | special
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise unusable(folder / "tokenizer.json", "model.vocab: 토큰의 번호가 0부터 빠짐없이 이어지지 않습니다.")
    for name, token in (("eos_token", settings.eos_token), ("pad_token", settings.pad_token)):
        if token not in special:
            raise unusable(folder / "tokenizer_config.json", f"{name}: tokenizer.json의 added_tokens에 없는 토큰입니다.")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.model.merges])
    writer.add_eos_token_id(special[settings.eos_token])
    writer.add_pad_token_id(special[settings.pad_token])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings.chat_template)


def expected(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama model whose input and output share one table: their names in a GGUF file, and their shapes."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = (config[name] * config["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    layer = {
        "attn_norm": (hidden,), "attn_q": (queries, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden),
        "attn_output": (hidden, queries),
        "ffn_norm": (hidden,), "ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner),
    }
    layers = range(config["num_hidden_layers"])
    return {
        "token_embd.weight": (config["vocab_size"], hidden), "output_norm.weight": (hidden,),
        **{f"blk.{i}.{name}.weight": shape for i in layers for name, shape in layer.items()},
    }


def require_tensors(file: Safetensors, config: dict[str, Any], block: int) -> None:
    """That the file has the tensors that follow from `config`, in rows of whole blocks of `block` weights."""
    wanted = expected(config)
    for tensor in file.tensors:
        try:
            shape = wanted.pop(gguf_name(tensor.name))
        except (KeyError, ValueError) as error:
            raise damaged(file.path, shown(tensor.name), tensor.offset, "이 변환기가 모르는 텐서이거나 두 번 나옵니다.") from error
        if tensor.kind not in ("F16", "F32"):
            raise damaged(file.path, f"{tensor.name}의 dtype", tensor.offset, f"F16이나 F32여야 하는데 {tensor.kind}입니다.")
        if tensor.shape != shape:
            why = f"config.json대로라면 {shape}여야 하는데 {tensor.shape}입니다."
            raise damaged(file.path, f"{tensor.name}의 shape", tensor.offset, why)
        if len(shape) == 2 and shape[1] % block:
            why = f"한 줄의 가중치 {shape[1]:,}개가 블록의 크기인 {block}개로 나누어떨어지지 않습니다."
            raise damaged(file.path, f"{tensor.name}의 shape", tensor.offset, why)
    if wanted:
        raise damaged(file.path, "header", 8, f"있어야 할 텐서가 없습니다: {', '.join(list(wanted)[:3])}")


def convert(folder: Path, out: Path, file_type: str = "F16") -> None:
    """Write a model folder as one GGUF file. Matrices get `file_type` ("F16" or "Q8_0"), norms stay F32.

    Raises ModelFileError where the folder is incomplete, NotEnoughRoom where the disk is full.
    """
    kind, mostly = FILE_TYPES[file_type]
    config = part(folder / "config.json", Config).model_dump()
    require_tensors(safetensors_file.read(folder / "model.safetensors"), config, gguf.GGML_QUANT_SIZES[kind][0])
    tensors = load_file(folder / "model.safetensors")
    with new_file(out) as path:
        writer = gguf.GGUFWriter(path, "llama")
        write_header(writer, config, "tutor", mostly)
        write_tokenizer(writer, folder)
        for name, weight in tensors.items():
            heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
            if heads:
                weight = interleave(weight, config[heads])
            if weight.ndim == 1:
                writer.add_tensor(gguf_name(name), weight.astype(np.float32))
            else:
                data = gguf.quants.quantize(weight.astype(np.float32), kind)
                writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
        finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write header, metadata and tensors, and close also where the disk is full."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


@contextmanager
def new_file(out: Path) -> Iterator[Path]:
    """A temporary file that becomes `out` when the block succeeds and vanishes when it does not.

    Two processes may write the same file at once: each has its own temporary one, and the rename is atomic.
    Raises SettingError where `out` is a folder, before anything is done.
    """
    if out.is_dir():
        raise SettingError(f"파일이 아니라 폴더입니다: {out}", "같은 이름의 폴더가 있습니다.", "만들 파일의 이름까지 적으세요.")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=out.name + ".", suffix=".part")
        os.close(handle)
        try:
            yield Path(name)
            Path(name).chmod(0o644)  # mkstemp's 0600 would hide a shared cache from the other learners
            Path(name).replace(out)
        finally:
            Path(name).unlink(missing_ok=True)
