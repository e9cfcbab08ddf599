"""Rotary positions, plain and stretched by YaRN."""

import math

import torch
from torch import Tensor

from engram.config.model import RopeConfig, YarnConfig

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of the tokens' angles, [T, c / 2] or [B, T, c / 2] each."""


def frequencies(rope: RopeConfig, channels: int, device: torch.device) -> Tensor:
    """Angle per position of each pair of channels, fp32 [channels / 2]."""
    exponents = torch.arange(0, channels, 2, device=device, dtype=torch.float32) / channels
    plain = 1 / rope.theta**exponents
    return plain if rope.yarn is None else _stretched(plain, rope.theta, rope.yarn)


def _stretched(plain: Tensor, theta: float, yarn: YarnConfig) -> Tensor:
    """YaRN's "NTK by parts": slow channels are interpolated by `scale`, fast ones kept, a linear ramp in between."""
    channels = 2 * len(plain)

    def channel_that_turns(times: float) -> float:
        return channels * math.log(yarn.original_length / (times * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(channel_that_turns(yarn.beta)), 0)
    last = min(math.ceil(channel_that_turns(yarn.alpha)), channels - 1)
    ramp = (torch.arange(len(plain), device=plain.device, dtype=torch.float32) - first) / max(last - first, 1e-3)
    interpolated = ramp.clamp(0, 1)  # share of interpolation
    return plain / yarn.scale * interpolated + plain * (1 - interpolated)


def rotary_tables(rope: RopeConfig, channels: int, positions: Tensor) -> Rotary:
    """Cosines and sines at positions int64 [T] or [B, T]: fp32 [..., T, channels / 2] each."""
    angles = positions.float().unsqueeze(-1) * frequencies(rope, channels, positions.device)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate channel pairs (i, i + c / 2) of x [B, T, h, c]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = (table.unsqueeze(-2).to(x.dtype) for table in rotary)  # [..., T, 1, c / 2]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
