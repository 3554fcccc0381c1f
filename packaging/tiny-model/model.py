"""The model: llama.cpp's architecture `qwen3` (RMSNorm, grouped queries with normed heads, SwiGLU, tied embeddings)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 everybody's name for it
from torch import Tensor, nn

EPSILON = 1e-6
ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What the weights look like. Every width is a multiple of 32, the block of llama.cpp's quantisations."""

    vocabulary: int = 6144
    width: int = 384
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    head_width: int = 64
    ffn_width: int = 896
    context: int = 1024


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), EPSILON).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, a head's first half paired with its second."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        query, key, width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width, shape.width

        def matrix(rows: int, columns: int, scale: float = 0.8) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns) * (scale * columns**-0.5))

        residual = 0.8 * (2 * shape.layers) ** -0.5
        self.attn_q, self.attn_k, self.attn_v = matrix(query, width), matrix(key, width), matrix(key, width)
        self.attn_output = matrix(width, query, residual)
        self.ffn_gate, self.ffn_up = matrix(shape.ffn_width, width), matrix(shape.ffn_width, width)
        self.ffn_down = matrix(width, shape.ffn_width, residual)
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.attn_q_norm = nn.Parameter(torch.ones(shape.head_width))
        self.attn_k_norm = nn.Parameter(torch.ones(shape.head_width))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        s, kind = self.shape, x.dtype
        h = rms_norm(x, self.attn_norm)
        # One product for the three: the weights are small, reading the activations is what costs.
        qkv = F.linear(h, torch.cat((self.attn_q, self.attn_k, self.attn_v)).to(kind))
        q, k, v = qkv.view(batch, length, -1, s.head_width).split((s.heads, s.kv_heads, s.kv_heads), 2)
        q = rotate(rms_norm(q, self.attn_q_norm), cos, sin).transpose(1, 2)
        k = rotate(rms_norm(k, self.attn_k_norm), cos, sin).transpose(1, 2)
        o = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=True)
        x = x + F.linear(o.transpose(1, 2).reshape(batch, length, -1), self.attn_output.to(kind))
        gate, up = F.linear(rms_norm(x, self.ffn_norm), torch.cat((self.ffn_gate, self.ffn_up)).to(kind)).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.ffn_down.to(kind))


class Model(nn.Module):
    """Parameters are float32; activations have the type that `kind` says."""

    def __init__(self, shape: Shape, kind: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape, self.kind = shape, kind
        self.token_embd = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * 0.02)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.Parameter(torch.ones(shape.width))
        frequencies = ROPE_BASE ** -(torch.arange(0, shape.head_width, 2).float() / shape.head_width)
        angles = torch.outer(torch.arange(shape.context).float(), frequencies)[:, None]
        self.register_buffer("cos", angles.cos().to(kind), persistent=False)
        self.register_buffer("sin", angles.sin().to(kind), persistent=False)

    def hidden(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        x = F.embedding(ids, self.token_embd).to(self.kind)
        for block in self.blk:
            x = block(x, self.cos[:length], self.sin[:length])
        return x

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(rms_norm(self.hidden(ids), self.output_norm), self.token_embd.to(self.kind)).float()


def token_losses(x: Tensor, norm: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
    """The loss of every token, in nats, from the last block's output."""
    logits = F.linear(rms_norm(x, norm), embedding.to(x.dtype)).float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
