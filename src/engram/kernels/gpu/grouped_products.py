"""Matrix products of rows grouped by expert with the expert's own matrix, and the gradients of those matrices.

A program of a product works on one tile: some rows of one expert (`engram.kernels.gpu.grouping`) by some columns. There are as many
programs as the worst split of the rows could need, since the host doesn't know the split; those left over do nothing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu.grouping import Groups, expert_block

_PROCESSORS = 132
_SPLIT_ROWS = 512


@triton.jit
def tile_rows(tile, starts, tile_ends, experts, block_e: tl.constexpr, block_m: tl.constexpr):
    """Expert of a tile, its first row, and the end of the expert's rows: 0 if there is no such tile."""
    number = tl.arange(0, block_e)
    ends = tl.load(tile_ends + number, mask=number < experts, other=2147483647)
    expert = tl.sum((ends <= tile).to(tl.int32), 0)
    safe = tl.minimum(expert, experts - 1)
    tiles_before = tl.load(tile_ends + safe - 1, mask=safe > 0, other=0)
    start = tl.load(starts + safe) + (tile - tiles_before) * block_m
    return expert, start, tl.load(starts + expert + 1, mask=expert < experts, other=0)


@triton.jit(do_not_specialize=["experts"])
def _product(
    rows, matrices, starts, tile_ends, result, experts, inner: tl.constexpr, width: tl.constexpr, transposed: tl.constexpr,
    block_e: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr,
):  # fmt: skip
    columns: tl.constexpr = (width + block_n - 1) // block_n
    expert, start, end = tile_rows(tl.program_id(0) // columns, starts, tile_ends, experts, block_e, block_m)
    if start < end:
        column = (tl.program_id(0) % columns) * block_n + tl.arange(0, block_n)
        at = tl.arange(0, block_k)
        line = tl.arange(0, block_m)
        here = line < end - start
        a = rows + start.to(tl.int64) * inner + line[:, None] * inner + at[None, :]
        b = matrices + expert.to(tl.int64) * (inner * width)
        if transposed:
            b += column[None, :] * inner + at[:, None]
        else:
            b += at[:, None] * width + column[None, :]
        total = tl.zeros([block_m, block_n], dtype=tl.float32)
        for first in range(0, inner, block_k):
            left = tl.load(a, mask=here[:, None] & (first + at < inner)[None, :], other=0.0)
            right = tl.load(b, mask=(first + at < inner)[:, None] & (column < width)[None, :], other=0.0)
            total = tl.dot(left, right, total, input_precision="ieee")
            a += block_k
            if transposed:
                b += block_k
            else:
                b += block_k * width
        to = result + start.to(tl.int64) * width + line[:, None] * width + column[None, :]
        tl.store(to, total.to(result.dtype.element_ty), mask=here[:, None] & (column < width)[None, :])


@triton.jit(do_not_specialize=["experts", "splits"])
def _gradient(
    a, b, order, starts, result, experts, splits,
    k: tl.constexpr, a_by_token: tl.constexpr, b_by_token: tl.constexpr, m: tl.constexpr, n: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr,
):  # fmt: skip
    columns: tl.constexpr = (n + block_n - 1) // block_n
    tiles: tl.constexpr = ((m + block_m - 1) // block_m) * columns
    tile, group = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    expert, split = group // splits, group % splits
    start, end = tl.load(starts + expert), tl.load(starts + expert + 1)
    share = tl.cdiv(tl.cdiv(end - start, splits), block_k) * block_k
    start += split * share
    end = tl.minimum(end, start + share)
    line, column = (tile // columns) * block_m + tl.arange(0, block_m), (tile % columns) * block_n + tl.arange(0, block_n)
    total = tl.zeros([block_m, block_n], dtype=tl.float32)
    for first in range(start, end, block_k):
        row = first + tl.arange(0, block_k)
        here = row < end
        a_row, b_row = row, row
        if a_by_token:
            a_row = tl.load(order + row, mask=here, other=0) // k
        if b_by_token:
            b_row = tl.load(order + row, mask=here, other=0) // k
        left = tl.load(a + a_row.to(tl.int64)[:, None] * m + line[None, :], mask=here[:, None] & (line < m)[None, :], other=0.0)
        right = tl.load(b + b_row.to(tl.int64)[:, None] * n + column[None, :], mask=here[:, None] & (column < n)[None, :], other=0.0)
        total = tl.dot(tl.trans(left), right, total, input_precision="ieee")
    to = result + (split * experts + expert).to(tl.int64) * (m * n) + line[:, None] * n + column[None, :]
    tl.store(to, total, mask=(line < m)[:, None] & (column < n)[None, :])


def width_block(width: int, dtype: torch.dtype, most: int = 128) -> int:
    """Columns of a tile: few wasted in the last, but rather wide, since each tile reads all rows again."""
    sizes = [size for size in (128, 64, 32, 16) if size <= (most if dtype.itemsize == 2 else min(most, 64))]
    return min(sizes, key=lambda size: triton.cdiv(width, size) * (size + 16))


def inner_block(width: int, dtype: torch.dtype) -> int:
    """Terms that one step of a product adds: 64 fill a row of shared memory, unless too many of them would be padding."""
    padded = triton.cdiv(width, 64) * 64
    return 64 if dtype.itemsize == 2 and (padded <= 1.15 * width or 32 < width <= 64) else 32


def row_block(rows: int, experts: int, dtype: torch.dtype) -> int:
    """Rows of a tile: more where experts have many."""
    return 128 if dtype.itemsize == 2 and rows >= 512 * experts else 64


def grouped_product(rows: Tensor, matrices: Tensor, groups: Groups, transposed: bool = False) -> Tensor:
    """Rows [R, inner] by expert times the expert's matrix -> [R, width].

    Matrices are [E, inner, width], or `transposed` [E, width, inner].
    """
    inner, width = matrices.shape[1:] if not transposed else matrices.shape[:0:-1]
    block_n, experts = width_block(width, rows.dtype), len(matrices)
    result = rows.new_empty(len(rows), width)
    _product[(groups.most_tiles * triton.cdiv(width, block_n),)](
        rows, matrices, groups.starts, groups.tile_ends, result, experts, inner, width, transposed,
        expert_block(experts), groups.tile, block_n, inner_block(inner, rows.dtype), num_warps=groups.tile // 16,
    )  # fmt: skip
    return result


def matrix_gradients(a: Tensor, b: Tensor, groups: Groups, k: int, by_token: tuple[bool, bool]) -> Tensor:
    """For each expert the sum over its rows of the outer products of `a` and `b`: [R, m], [R, n] -> fp32 [E, m, n].

    Those that are `by_token` are [N, m] or [N, n]: the row of assignment i is row i // k.
    """
    (m, n), experts = (a.shape[1], b.shape[1]), len(groups.load)
    block_m, block_n = width_block(m, a.dtype), width_block(n, a.dtype)
    programs = experts * triton.cdiv(m, block_m) * triton.cdiv(n, block_n)
    # Few experts with many rows would leave processors idle: their rows are split, and the parts added.
    splits = max(1, min(16, 2 * _PROCESSORS // programs, len(groups.order) // (experts * _SPLIT_ROWS)))
    parts = torch.empty(splits, experts, m, n, dtype=torch.float32, device=a.device)
    _gradient[(programs * splits,)](
        a, b, groups.order, groups.starts, parts, experts, splits, k, *by_token, m, n,
        block_m, block_n, 64 if a.dtype.itemsize == 2 else 32, num_warps=8 if block_m * block_n > 64 * 128 else 4,
    )  # fmt: skip
    return parts[0] if splits == 1 else parts.sum(0)
