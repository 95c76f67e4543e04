"""The decoder of Llama: RMSNorm before each part of a block, rotary positions, shared key heads, a gated network.

Touvron et al., "LLaMA" and "Llama 2" (2023); Su et al., "RoFormer" (2021), the two halves of a head rotated against
each other as in the published weights; Ainslie et al., "GQA" (2023); Shazeer, "GLU Variants Improve Transformer"
(2020).
Parameters carry the names of those in Hugging Face's transformers, without the leading "model.".
"""

from __future__ import annotations

from dataclasses import dataclass

import pullback as pb
from pullback import nn


@dataclass(frozen=True)
class LlamaConfiguration:
    """The sizes of a model: tokens known, width of the residual stream, blocks, heads of queries, heads of keys and
    values, width of the gated network, and the base of the rotary positions' wavelengths.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_heads: int
    hidden: int
    base: float = 10000.0
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "layers", "heads", "key_heads", "hidden"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.width % (2 * self.heads):
            raise ValueError(f"width ({self.width}) must be a multiple of twice the heads ({self.heads})")
        if self.heads % self.key_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of key_heads ({self.key_heads})")


Rotation = tuple[pb.Tensor, pb.Tensor]


def rotation(length: int, features: int, base: float, dtype: pb.dtype) -> Rotation:
    """Cosine and sine [length, features / 2] of the angle of each position and pair of features."""
    wavelengths = base ** (pb.arange(0, features, 2, dtype=pb.float32) / features)
    angles = pb.arange(length, dtype=pb.float32).reshape(length, 1) / wavelengths
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotated(x: pb.Tensor, by: Rotation) -> pb.Tensor:
    """x [..., length, features] with each feature of the first half rotated against its partner in the second."""
    cosine, sine = by
    first, second = x.chunk(2, dim=-1)
    return pb.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Attention(nn.Module):
    """Causal attention of rotated queries and keys; groups of query heads share a head of keys and values."""

    def __init__(self, sizes: LlamaConfiguration):
        super().__init__()
        self.features = sizes.width // sizes.heads
        self.q_proj = nn.Linear(sizes.width, sizes.width, bias=False)
        self.k_proj = nn.Linear(sizes.width, sizes.key_heads * self.features, bias=False)
        self.v_proj = nn.Linear(sizes.width, sizes.key_heads * self.features, bias=False)
        self.o_proj = nn.Linear(sizes.width, sizes.width, bias=False)

    def forward(self, x: pb.Tensor, by: Rotation) -> pb.Tensor:
        batch, length, width = x.shape
        query, key, value = (
            project(x).reshape(batch, length, -1, self.features).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = nn.functional.scaled_dot_product_attention(
            rotated(query, by), rotated(key, by), value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
        return self.o_proj(seen.transpose(1, 2).reshape(batch, length, width))


class Gated(nn.Module):
    """SwiGLU: what one projection lets through of the other."""

    def __init__(self, sizes: LlamaConfiguration):
        super().__init__()
        self.gate_proj = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.up_proj = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.down_proj = nn.Linear(sizes.hidden, sizes.width, bias=False)

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention, then the gated network at each position, each added to the residual stream."""

    def __init__(self, sizes: LlamaConfiguration):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(sizes.width, sizes.epsilon)
        self.self_attn = Attention(sizes)
        self.post_attention_layernorm = nn.RMSNorm(sizes.width, sizes.epsilon)
        self.mlp = Gated(sizes)

    def forward(self, x: pb.Tensor, by: Rotation) -> pb.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), by)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Scores of the next token [batch, length, vocabulary] for tokens [batch, length] (int64)."""

    def __init__(self, sizes: LlamaConfiguration):
        super().__init__()
        self.sizes = sizes
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleList([Block(sizes) for _ in range(sizes.layers)])
        self.norm = nn.RMSNorm(sizes.width, sizes.epsilon)
        self.lm_head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0.0, 0.02)

    def forward(self, tokens: pb.Tensor) -> pb.Tensor:
        x = self.embed_tokens(tokens)
        by = rotation(tokens.shape[1], self.sizes.width // self.sizes.heads, self.sizes.base, x.dtype)
        for block in self.layers:
            x = block(x, by)
        return self.lm_head(self.norm(x))
