"""Rotary causal self-attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.config import ModelConfig
from engram.model.precision import small_product_dtype


def rotary_tables(head_dim: int, length: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, fp32 [T, head_dim / 2] each."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs (i, i + head_dim / 2) of x [..., T, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def shift_half(keys: Tensor) -> Tensor:
    """Take half of the key channels from the previous position (zeros before the start).

    The half with the slow rotary frequencies moves, whole pairs together: it matches by content, which is what
    finding "the token after the one like me" needs. [B, h, T, head_dim] -> [B, h, T, head_dim]
    """
    halves = keys.unflatten(-1, (2, -1))  # [B, h, T, 2, head_dim / 2]
    kept = halves.shape[-1] - halves.shape[-1] // 2
    previous = F.pad(halves[:, :, :-1, :, kept:], (0, 0, 0, 0, 1, 0))
    return torch.cat([halves[..., :kept], previous], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Multi-head causal attention; one matrix holds the query, key and value projections."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.head_dim = config.attention.n_heads, config.head_dim
        self.theta, self.key_shift = config.attention.rope_theta, config.attention.key_shift
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]"""
        projected = self.qkv(x).to(small_product_dtype(x))
        heads = projected.unflatten(-1, (3, self.n_heads, self.head_dim)).permute(2, 0, 3, 1, 4)  # [3, B, h, T, head_dim]
        query, key, value = heads.unbind(0)
        if self.key_shift:
            key = shift_half(key)
        cos, sin = rotary_tables(self.head_dim, x.shape[1], self.theta, x.device)
        with torch.autocast(x.device.type, enabled=False):  # the type is chosen above
            mixed = F.scaled_dot_product_attention(rotate(query, cos, sin), rotate(key, cos, sin), value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(-2))
