"""Norm of all gradients, and the factor that clips them. The factor stays on the device: kernels that read gradients multiply by it."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu import together

_BLOCK = 8192
_AT_ONCE = 64
_TILE = 4096


@triton.jit
def _squares(tensors, table, partial, block: tl.constexpr):
    number, i, inside = together.own_block(table, block)
    x = tl.load(together.pick(tensors, number) + i, mask=inside, other=0.0)
    tl.store(partial + tl.program_id(0), tl.sum(x * x, axis=0))


@triton.jit(do_not_specialize=["n"])
def _total(partial, norm, factor, n, limit, tile: tl.constexpr):
    squares = tl.zeros((tile,), tl.float32)
    for start in range(0, n, tile):
        i = start + tl.arange(0, tile)
        squares += tl.load(partial + i, mask=i < n, other=0.0)
    length = tl.sqrt(tl.sum(squares, axis=0))
    scale = limit / (length + 1e-6)
    tl.store(norm, length)
    tl.store(factor, tl.where(scale > 1, 1.0, scale))  # NaN stays


class GradientNorm:
    """The norm of tensors that have the same sizes at every step.

    Args:
        sizes: numbers of each tensor.
        device: where they are.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self._tables = [together.block_table(sizes[i : i + _AT_ONCE], _BLOCK, device) for i in range(0, len(sizes), _AT_ONCE)]
        self._blocks = sum(map(len, self._tables))

    def __call__(self, tensors: Sequence[Tensor], limit: float) -> tuple[Tensor, Tensor]:
        """The norm of fp32 tensors together, and the factor that brings it down to `limit` if it is above: fp32 [] each."""
        partial = tensors[0].new_empty(self._blocks)
        tensors = together.readable(tensors)
        done = 0
        for i, table in enumerate(self._tables):
            some = together.filled(tensors[i * _AT_ONCE : (i + 1) * _AT_ONCE], _AT_ONCE)
            if len(table):
                _squares[(len(table),)](some, table, partial[done:], _BLOCK, num_warps=8)
            done += len(table)
        norm, factor = partial.new_empty(()), partial.new_empty(())
        _total[(1,)](partial, norm, factor, done, limit, _TILE, num_warps=8)
        return norm, factor
