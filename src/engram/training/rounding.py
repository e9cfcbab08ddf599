"""Rounding to bf16 at random, so that steps smaller than a bf16's spacing are not lost but taken now and then."""

import torch
from torch import Tensor

_KEPT = -0x10000
"""Upper half of an fp32: what a bf16 holds"""
_DROPPED = 0xFFFF


def round_at_random(exact: Tensor, step: int) -> Tensor:
    """bf16 neighbours of fp32 numbers, the nearer one more often: right on average (stochastic rounding; Gupta et al., 2015, 1502.02551).

    The chance comes from a hash of the number and the step: no generator has to be kept, and wherever rows lie, in whatever order they
    are updated, they round alike. Infinity and NaN stay what they are.
    """
    bits = exact.contiguous().view(torch.int32)
    up = (bits + (_hashed(bits, step) & _DROPPED)) & _KEPT  # the sign stands apart, so this is away from zero
    return torch.where(exact.isfinite(), up.view(torch.float32), exact).to(torch.bfloat16)


def _hashed(bits: Tensor, step: int) -> Tensor:
    """The finaliser of MurmurHash3 on int32 numbers, a different one each step; right shifts bring in zeros."""
    mixed = bits ^ _wrapped((step + 1) * 0x9E3779B9)
    mixed = (mixed ^ (mixed >> 16 & 0xFFFF)) * _wrapped(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13 & 0x7FFFF)) * _wrapped(0xC2B2AE35)
    return mixed ^ (mixed >> 16 & 0xFFFF)


def _wrapped(number: int) -> int:
    """A number of 32 bits as int32 holds it."""
    return (number + 0x80000000) % 0x100000000 - 0x80000000
