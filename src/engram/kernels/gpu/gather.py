"""Rows of a matrix by id."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096
"""About how many numbers a program copies."""


@triton.jit(do_not_specialize=["n"])
def _gather(table, ids, out, n, width: tl.constexpr, tile: tl.constexpr, cols: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    j = tl.arange(0, cols)
    mask = (i < n)[:, None] & (j < width)[None, :]
    row = tl.load(ids + i, mask=i < n, other=0).to(tl.int64)
    x = tl.load(table + row[:, None] * width + j[None, :], mask=mask, other=0.0)
    tl.store(out + i[:, None] * width + j[None, :], x, mask=mask)


def gather(table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows `ids` int [n] of a table fp32 or bf16 [V, r], contiguous: [n, r] in `dtype`, without gradient."""
    width = table.shape[1]
    out = torch.empty(len(ids), width, dtype=dtype, device=table.device)
    cols = triton.next_power_of_2(width)
    tile = max(1, _TILE // cols)
    if len(ids):
        _gather[(triton.cdiv(len(ids), tile),)](table, ids, out, len(ids), width, tile, cols)
    return out
