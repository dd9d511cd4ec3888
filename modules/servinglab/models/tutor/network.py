"""The tutor's network for training, in PyTorch. Inference never needs this file: see `models/forward.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "vocab_size": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 4,
    "pad_token_id": 0,
    "dtype": "float16",
}


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in Transformers' half-split form. `x`: (batch, heads, tokens, head_dim)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention with shared key/value heads. `q`: (batch, heads, tokens, head_dim), `k`, `v` with fewer heads.

    Written out, because the backward pass of PyTorch's own kernel takes a quarter of a step on a CPU for texts this short.
    """
    batch, heads, tokens, size = q.shape
    shared = k.shape[1]
    q = q.reshape(batch, shared, heads // shared * tokens, size)
    scores = (q @ k.transpose(2, 3)).view(batch, heads, tokens, tokens) * size**-0.5
    future = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1).to(v.dtype)
    return (weights.view(batch, shared, heads // shared * tokens, tokens) @ v).view(batch, heads, tokens, size)


class Block(nn.Module):
    """One Llama layer: attention with shared key/value heads, then the gated feed-forward network."""

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        hidden, kv = c["hidden_size"], c["num_key_value_heads"] * c["head_dim"]
        self.head_dim = c["head_dim"]
        self.input_layernorm = nn.RMSNorm(hidden, eps=c["rms_norm_eps"])
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=c["rms_norm_eps"])
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, kv, bias=False)
        self.v_proj = nn.Linear(hidden, kv, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)
        self.gate_proj = nn.Linear(hidden, c["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(hidden, c["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(c["intermediate_size"], hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, drop: float) -> Tensor:
        batch, tokens, hidden = x.shape
        y = self.input_layernorm(x)
        q, k, v = (
            layer(y).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        mixed = attend(q, k, v).transpose(1, 2).reshape(batch, tokens, hidden)
        x = x + F.dropout(self.o_proj(mixed), drop, self.training)
        y = self.post_attention_layernorm(x)
        return x + F.dropout(self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y)), drop, self.training)


TOPIC_LAYERS = 2
"""So many layers find out what a question is about; those above read it off and answer. It is learned there and not after
the last layer, because a later token sees an earlier one only as it was before the last layer."""


class Network(nn.Module):
    """Token ids (batch, tokens) to two hidden states (batch, tokens, hidden): after the last layer, which `logits` multiplies
    by the tied embedding, and after `TOPIC_LAYERS`, normalised."""

    def __init__(self, c: dict[str, Any], drop: float = 0.0) -> None:
        super().__init__()
        self.config, self.drop = c, drop
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], eps=c["rms_norm_eps"])
        frequency = c["rope_theta"] ** (-torch.arange(0, c["head_dim"], 2) / c["head_dim"])
        angle = torch.outer(torch.arange(c["max_position_embeddings"]), frequency)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x: Tensor = self.embed_tokens(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers[:TOPIC_LAYERS]:
            x = layer(x, cos, sin, self.drop)
        topic = F.rms_norm(x, (x.shape[-1],))
        for layer in self.layers[TOPIC_LAYERS:]:
            x = layer(x, cos, sin, self.drop)
        return self.norm(x), topic

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.embed_tokens.weight.T


def save(network: Network, folder: Path) -> None:
    """Write `model.safetensors` (F16, Transformers' tensor names) and `config.json`."""
    parts = {"embed_tokens": "", "norm": "", "input_layernorm": "", "post_attention_layernorm": ""}
    tensors = {}
    for name, value in network.state_dict().items():
        words = name.split(".")
        if words[0] == "layers" and words[2] not in parts:
            words.insert(2, "self_attn" if words[2] in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp")
        tensors["model." + ".".join(words)] = value.detach().to("cpu", torch.float16).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(network.config, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, drop: float = 0.0) -> Network:
    """The network that `save` wrote, in float32."""
    network = Network(CONFIG, drop)
    weights = load_file(folder / "model.safetensors")
    short = {re.sub(r"^model\.|self_attn\.|mlp\.", "", name): value.float() for name, value in weights.items()}
    network.load_state_dict(short)
    return network
