"""Stochastic rounding to bf16: steps smaller than the spacing of bf16 numbers are taken now and then instead of being lost."""

import torch
from torch import Tensor

_KEPT = -0x10000
"""Mask of the upper half of an fp32, which is what a bf16 holds."""
_DROPPED = 0xFFFF


def round_at_random(exact: Tensor, step: int) -> Tensor:
    """Round fp32 numbers to one of their bf16 neighbours, the nearer one more often: unbiased (Gupta et al., 2015, arXiv 1502.02551).

    The randomness comes from a hash of the number and the step: there is no generator to keep, and rows round alike wherever they are
    kept and in whatever order they are updated. Infinity and NaN stay as they are.
    """
    bits = exact.contiguous().view(torch.int32)
    up = (bits + (_hashed(bits, step) & _DROPPED)) & _KEPT  # the sign bit is separate, so this rounds away from zero
    return torch.where(exact.isfinite(), up.view(torch.float32), exact).to(torch.bfloat16)


def _hashed(bits: Tensor, step: int) -> Tensor:
    """The finaliser of MurmurHash3 on int32 numbers, keyed by the step; right shifts bring in zeros."""
    mixed = bits ^ rounding_key(step)
    mixed = (mixed ^ (mixed >> 16 & 0xFFFF)) * _wrapped(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13 & 0x7FFFF)) * _wrapped(0xC2B2AE35)
    return mixed ^ (mixed >> 16 & 0xFFFF)


def rounding_key(step: int) -> int:
    """What the hash of a step's numbers is keyed by, as an int32 holds it."""
    return _wrapped((step + 1) * 0x9E3779B9)


def _wrapped(number: int) -> int:
    """A 32-bit number as an int32 holds it."""
    return (number + 0x80000000) % 0x100000000 - 0x80000000
