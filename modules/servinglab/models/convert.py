"""From `safetensors` + tokenizer to GGUF, with the `gguf` package. Lesson 02 takes this apart."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from servinglab.errors import ModelFileError, disk_errors

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
    """Vocabulary, merges, special tokens and the chat template."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    special = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary | special, key=(vocabulary | special).__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(special[settings["eos_token"]])
    writer.add_pad_token_id(special[settings["pad_token"]])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])


def convert(folder: Path, out: Path, file_type: str = "F16") -> None:
    """Write a model folder as one GGUF file. Matrices get `file_type` ("F16" or "Q8_0"), norms stay F32.

    Raises ModelFileError where the folder is incomplete, NotEnoughRoom where the disk is full.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"모델 폴더 {folder} 를 읽지 못했습니다.", str(error), "저장소를 다시 받거나 git checkout data/tutor 로 되살리세요."
        ) from error
    kind, mostly = FILE_TYPES[file_type]
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
    """
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
