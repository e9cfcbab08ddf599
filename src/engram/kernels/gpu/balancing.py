"""Loads of experts and their balancing biases (`model.moe.Router`)."""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu import together

_BLOCK = 128


@triton.jit(do_not_specialize=["n"])
def _count(tokens, load, window_load, n, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    inside = i < n
    more = tl.load(tokens + i, mask=inside, other=0).to(tl.float32)
    tl.store(load + i, tl.load(load + i, mask=inside) + more, mask=inside)
    tl.store(window_load + i, tl.load(window_load + i, mask=inside) + more, mask=inside)


@triton.jit(do_not_specialize=["n"])
def _balance(biases, loads, idle_steps, n, balance_step, block: tl.constexpr):
    number = tl.program_id(0)
    bias, load, idle = together.pick(biases, number), together.pick(loads, number), together.pick(idle_steps, number)
    total = 0.0
    for start in range(0, n, block):
        i = start + tl.arange(0, block)
        total += tl.sum(tl.load(load + i, mask=i < n, other=0.0), axis=0)
    mean = tl.div_rn(total, n.to(tl.float32))  # an expert with just the mean stays where it is
    for start in range(0, n, block):
        i = start + tl.arange(0, block)
        tokens = tl.load(load + i, mask=i < n, other=0.0)
        sign = (mean > tokens).to(tl.float32) - (mean < tokens).to(tl.float32)
        tl.store(bias + i, tl.load(bias + i, mask=i < n) + balance_step * sign, mask=i < n)
        tl.store(idle + i, tl.where(tokens > 0, 0.0, tl.load(idle + i, mask=i < n) + 1), mask=i < n)
        tl.store(load + i, tokens * 0, mask=i < n)


def count(tokens_per_expert: Tensor, load: Tensor, window_load: Tensor) -> None:
    """Add int64 [E] to two loads fp32 [E]."""
    n = len(load)
    _count[(triton.cdiv(n, _BLOCK),)](tokens_per_expert.contiguous(), load, window_load, n, _BLOCK)


def balance(biases: Sequence[Tensor], loads: Sequence[Tensor], idle_steps: Sequence[Tensor], balance_step: float) -> None:
    """`Router.update_bias` for routers of equally many experts: fp32 [E] of each."""
    for start in range(0, len(biases), together.MOST):
        lists = [tensors[start : start + together.MOST] for tensors in (biases, loads, idle_steps)]
        _balance[(len(lists[0]),)](*map(together.filled, lists), len(biases[0]), balance_step, _BLOCK)
