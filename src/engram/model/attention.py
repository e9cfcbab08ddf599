"""Causal self-attention with rotary positions: plain multi-head, and multi-head latent (DeepSeek-V2, 2.1)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.config.model import LatentAttentionConfig, ModelConfig, MultiHeadAttentionConfig
from engram.history import History
from engram.kernels import gpu, ops
from engram.model.layers import Linear, RMSNorm
from engram.model.precision import small_product_dtype
from engram.model.rotary import Rotary, rotate


def shift_half(window: Tensor) -> Tensor:
    """Take half of the key channels from the previous position.

    The half with the slow rotary frequencies moves, in whole pairs: it matches by content, which is what finding "the token after the one
    like me" needs. [B, 1 + T, h, c], one position preceding the others -> [B, T, h, c]
    """
    halves = window.unflatten(-1, (2, -1))  # [B, 1 + T, h, 2, c / 2]
    kept = halves.shape[-1] - halves.shape[-1] // 2
    return torch.cat([halves[:, 1:, ..., :kept], halves[:, :-1, ..., kept:]], dim=-1).flatten(-2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of all heads: [B, T, h, c], [B, S, h, c], [B, S, h, v], mask bool [B or 1, 1, T, S] or None (causal) -> [B, T, h v]."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    with torch.autocast(query.device.type, enabled=False):  # the caller has chosen the dtype
        if mask is None and query.requires_grad and gpu.usable(query) and value.shape[-1] <= query.shape[-1] <= 256:
            from engram.kernels.gpu.attention import repeatable_attention

            return repeatable_attention(query, key, value, scale).transpose(1, 2).flatten(-2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale)
    return mixed.transpose(1, 2).flatten(-2)


class MultiHeadAttention(nn.Module):
    """Plain multi-head attention; one matrix holds the query, key and value projections."""

    def __init__(self, config: ModelConfig, attention: MultiHeadAttentionConfig) -> None:
        super().__init__()
        d = config.width
        self.n_heads, self.head_dim, self.key_shift = attention.n_heads, d // attention.n_heads, attention.key_shift
        self.scale = score_scale(attention, self.head_dim)
        self.qkv = Linear(d, 3 * d)
        self.out = Linear(d, d)

    def forward(self, x: Tensor, rotary: Rotary, added_values: Tensor | None, past: History) -> Tensor:
        """[B, T, d], and what a memory adds to the values of all heads [B, T, d] -> [B, T, d]"""
        projected = self.qkv(x).unflatten(-1, (3, self.n_heads, self.head_dim))  # [B, T, 3, h, c]
        if added_values is not None:
            query, key, value = projected.unbind(-3)
            projected = torch.stack([query, key, value + added_values.to(value.dtype).view_as(value)], dim=-3)

        def step_by_step() -> Tensor:
            query, key, value = projected.to(small_product_dtype(x)).unbind(-3)  # [B, T, h, c] each
            if self.key_shift:
                key = shift_half(past.window("key", key, 1))
            key, value = past.extend("keys", rotate(key, rotary)), past.extend("values", value)  # [B, S, h, c]
            return attend(rotate(query, rotary), key, value, past.mask(x.shape[1], x.device), self.scale)

        if past.is_empty:
            return self.out(ops.causal_attention(projected, *rotary, self.scale, self.key_shift, step_by_step))
        return self.out(step_by_step())


class LatentAttention(nn.Module):
    """Multi-head latent attention. Keys and values are made from a latent, which is all that is remembered, along with the rotary key.

    Rotary pairs are (i, i + c / 2); weights that pair (2 i, 2 i + 1), as DeepSeek's do, need the rows of their rotary channels reordered.
    """

    def __init__(self, config: ModelConfig, attention: LatentAttentionConfig) -> None:
        super().__init__()
        d, a, eps = config.width, attention, config.norm_eps
        self.n_heads, self.head_dim, self.rope_dim, self.value_dim = a.n_heads, a.head_dim, a.rope_dim, a.value_dim
        self.key_shift = a.key_shift
        self.scale = score_scale(a, a.head_dim + a.rope_dim)
        if a.query_rank is not None:
            self.query_down = Linear(d, a.query_rank)
            self.query_norm = RMSNorm(a.query_rank, eps)
        self.query = Linear(a.query_rank or d, a.scores_width(d))
        self.kv_down = Linear(d, a.kv_rank + a.rope_dim)
        self.kv_norm = RMSNorm(a.kv_rank, eps)
        self.kv_up = Linear(a.kv_rank, a.n_heads * (a.head_dim + a.value_dim))
        self.out = Linear(a.values_width(d), d)

    def forward(self, x: Tensor, rotary: Rotary, added_values: Tensor | None, past: History) -> Tensor:
        """[B, T, d], and what a memory adds to the values of all heads [B, T, h d_v] -> [B, T, d]"""
        low = self.query_norm(self.query_down(x)) if hasattr(self, "query_down") else x
        query = self.query(low).to(small_product_dtype(x)).unflatten(-1, (self.n_heads, -1))
        query, turned_query = query.split([self.head_dim, self.rope_dim], dim=-1)  # [B, T, h, c], [B, T, h, c_rope]
        latent, turned_key = self.kv_down(x).split([self.kv_norm.weight.numel(), self.rope_dim], dim=-1)
        latent = past.extend("latent", self.kv_norm(latent))  # [B, S, r]
        turned_key = past.extend("rotary_key", rotate(turned_key.to(query.dtype).unsqueeze(2), rotary))  # [B, S, 1, c_rope]
        key, value = self.kv_up(latent).to(query.dtype).unflatten(-1, (self.n_heads, -1)).split([self.head_dim, self.value_dim], dim=-1)
        if added_values is not None:
            value = value + past.extend("added", added_values).to(value.dtype).view_as(value)
        if self.key_shift:
            key = shift_half(F.pad(key, (0, 0, 0, 0, 1, 0)))  # the whole past is expanded here, so nothing more need be remembered
        query = torch.cat([query, rotate(turned_query, rotary)], dim=-1)
        key = torch.cat([key, turned_key.expand(-1, -1, self.n_heads, -1)], dim=-1)
        return self.out(attend(query, key, value, past.mask(x.shape[1], x.device), self.scale))


def score_scale(attention: MultiHeadAttentionConfig | LatentAttentionConfig, query_dim: int) -> float:
    """Factor on the products of queries and keys."""
    yarn = attention.rope.yarn
    return (yarn.score_scale if yarn else 1.0) / math.sqrt(query_dim)


def build_attention(config: ModelConfig) -> MultiHeadAttention | LatentAttention:
    """The attention module that the config asks for."""
    attention = config.attention
    if isinstance(attention, LatentAttentionConfig):
        return LatentAttention(config, attention)
    return MultiHeadAttention(config, attention)
