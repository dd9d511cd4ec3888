"""The whole of a Llama model in NumPy: token ids in, scores for the next token out. Slow and readable on purpose.

Follows the Llama architecture (Touvron et al. 2023) in the tensor names and the RoPE layout of Transformers.
Shapes are given behind the lines: T tokens, D hidden, H query heads, K key/value heads, d head size, V vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.float32]


class Llama:
    """A model folder (`config.json`, `model.safetensors`) ready to compute with, in float32."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.w: dict[str, Array] = {k: v.astype(np.float32) for k, v in load_file(folder / "model.safetensors").items()}

    def logits(self, ids: list[int]) -> Array:
        """Scores (T, V) of every token as the successor of each position; raises ValueError beyond the context."""
        if len(ids) > self.config["max_position_embeddings"]:
            raise ValueError(f"{len(ids)} tokens do not fit the context")
        x = self.w["model.embed_tokens.weight"][ids]                                  # (T, D)
        for i in range(self.config["num_hidden_layers"]):
            x = x + self.attention(self.norm(x, f"model.layers.{i}.input_layernorm"), f"model.layers.{i}.self_attn.")
            x = x + self.feed_forward(self.norm(x, f"model.layers.{i}.post_attention_layernorm"), f"model.layers.{i}.mlp.")
        scores: Array = self.norm(x, "model.norm") @ self.w["model.embed_tokens.weight"].T   # (T, V)
        return scores

    def greedy(self, ids: list[int], limit: int, stop: int) -> list[int]:
        """Up to `limit` new tokens, always the likeliest one, ending before `stop`. Recomputes everything each time."""
        out: list[int] = []
        while len(out) < limit and (token := int(self.logits(ids + out)[-1].argmax())) != stop:
            out.append(token)
        return out

    def norm(self, x: Array, name: str) -> Array:
        """RMSNorm: divide by the root mean square, then scale."""
        size = np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.config["rms_norm_eps"])
        scaled: Array = x / size * self.w[name + ".weight"]
        return scaled

    def attention(self, x: Array, name: str) -> Array:
        """Each token looks back at itself and earlier ones. Several query heads share one key/value head."""
        T, d = len(x), self.config["head_dim"]
        q = self.rotate((x @ self.w[name + "q_proj.weight"].T).reshape(T, -1, d))      # (T, H, d)
        k = self.rotate((x @ self.w[name + "k_proj.weight"].T).reshape(T, -1, d))      # (T, K, d)
        v = (x @ self.w[name + "v_proj.weight"].T).reshape(T, -1, d)                   # (T, K, d)
        share = q.shape[1] // k.shape[1]
        k, v = k.repeat(share, axis=1), v.repeat(share, axis=1)                        # (T, H, d)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(d)                          # (H, T, T)
        scores[:, np.triu(np.ones((T, T), bool), k=1)] = -np.inf                       # nobody sees the future
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", weights, v).reshape(T, -1)                   # (T, D)
        out: Array = (mixed @ self.w[name + "o_proj.weight"].T).astype(np.float32)
        return out

    def feed_forward(self, x: Array, name: str) -> Array:
        """SwiGLU: one projection opens and closes (gates) the other."""
        gate, up = x @ self.w[name + "gate_proj.weight"].T, x @ self.w[name + "up_proj.weight"].T
        out: Array = (gate / (1 + np.exp(-gate)) * up) @ self.w[name + "down_proj.weight"].T
        return out

    def rotate(self, x: Array) -> Array:
        """RoPE: turn each pair (i, i + d/2) by an angle that grows with the position. `x`: (T, heads, d)."""
        T, _, d = x.shape
        angle = np.outer(np.arange(T), self.config["rope_theta"] ** (-np.arange(0, d, 2) / d))  # (T, d/2)
        cos, sin = np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)
        a, b = x[..., : d // 2], x[..., d // 2 :]
        turned: Array = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        return turned
