"""Several tensors in one launch: a kernel takes a tuple of them, and a table on the device tells every program which one is its own."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST = 16
"""Tensors of a tuple. Shorter tuples are filled up, so that a kernel is compiled once."""
_ALIGNMENT = 16


@triton.jit
def pick(tensors, number):
    """Pointer to the fp32 numbers of the tensor with this number."""
    address = tensors[0].to(tl.int64)
    for i in tl.static_range(1, len(tensors)):
        address = tl.where(number == i, tensors[i].to(tl.int64), address)
    return tl.multiple_of(address, 16).to(tl.pointer_type(tl.float32))


def filled(tensors: Sequence[Tensor], count: int = MOST) -> tuple[Tensor, ...]:
    """Up to `count` tensors, fp32, contiguous and aligned, as an argument of a kernel."""
    return (*tensors, *([tensors[-1]] * (count - len(tensors))))


def readable(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors that a kernel only reads, fp32, in the form that `filled` takes: rarely, that is a copy."""
    return [x if x.is_contiguous() and x.data_ptr() % _ALIGNMENT == 0 else x.clone(memory_format=torch.contiguous_format) for x in tensors]


def block_table(sizes: Sequence[int], block: int, device: torch.device) -> Tensor:
    """Blocks of several tensors: of each, which tensor, where in it the block begins, and where the tensor ends, int64 [n, 3].

    Args:
        sizes: numbers of each tensor.
        block: numbers of a block; the last one of a tensor may have fewer.
        device: where the table has to be.
    """
    rows = [(number, start, size) for number, size in enumerate(sizes) for start in range(0, size, block)]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 3).to(device)


@triton.jit
def own_block(table, block: tl.constexpr):
    """Of a program: the number of its tensor, the places of its block there, and which of them exist."""
    row = table + tl.program_id(0).to(tl.int64) * 3
    start = tl.multiple_of(tl.load(row + 1), block)
    i = start + tl.arange(0, block)
    return tl.load(row), i, i < tl.load(row + 2)
