"""Sums of rows by id: ids are sorted once, and the rows of each segment of equal ids are added up.

A program adds the rows of one tile of sorted positions, as a product with the matrix that says which of them have the same id. A segment
that goes on in later tiles gets their parts from a second kernel, so that an id that occurs thousands of times takes no long chain of
single rows. The order of all additions depends on the ids only.
"""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

_TILE = 64
"""Sorted positions of a program; also how many parts of a long segment are read at once."""
_MOST_COLUMNS = 64
_FEWEST_COLUMNS = 16
"""The least that a product on tensor cores takes."""


@dataclass(frozen=True)
class Segments:
    """Ids in ascending order; equal ones form a segment, and the first position of each is its head."""

    keys: Tensor
    """The ids, none negative, int16 or int32 [n]."""
    order: Tensor
    """Where each of them was before, int64 [n]; of equal ids, the earlier one comes first."""


def sort_ids(ids: Tensor) -> Segments:
    """Sort ids, int16 or int32 [n]."""
    keys, order = ids.sort(stable=True)
    return Segments(keys, order)


@triton.jit
def _same_id_sums(key, x):
    """Sum over equal keys: [n], [n, c] -> fp32 [n, c], each row with the sum of all rows that have its key."""
    same = (key[:, None] == key[None, :]).to(tl.float32).to(tl.bfloat16)  # by way of fp32 for the interpreter
    if x.dtype == tl.bfloat16:
        sums = tl.dot(same, x)
    else:
        # Three bf16 hold an fp32 exactly, so that tensor cores can add fp32 numbers; the smallest go first.
        high = x.to(tl.bfloat16)
        rest = x - high.to(tl.float32)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
        sums = tl.dot(same, high, tl.dot(same, middle, tl.dot(same, low)))
    return sums


@triton.jit(do_not_specialize=["start", "n"])
def _tile_sums(
    keys, order, rows, sums, parts, norms, start, n, width: tl.constexpr,
    by_id: tl.constexpr, with_norms: tl.constexpr, tile: tl.constexpr, cols: tl.constexpr,
):  # fmt: skip
    """Sums of the segments that begin in a tile, as far as it goes, and of the one that it begins with if its head is before the tile."""
    t = tl.program_id(0)
    i = t * tile + tl.arange(0, tile)
    j = tl.program_id(1) * cols + tl.arange(0, cols)
    inside, column = i < n, (j < width)[None, :]
    key = tl.load(keys + start + i, mask=inside, other=-1)
    before = tl.load(keys + start + i - 1, mask=inside & (i > 0), other=-1)
    head = inside & (key != before)
    place = tl.load(order + start + i, mask=inside, other=start) - start
    x = tl.load(rows + place[:, None] * width + j[None, :], mask=inside[:, None] & column, other=0.0)
    total = _same_id_sums(key, x)
    where = (key if by_id else i).to(tl.int64)
    tl.store(sums + where[:, None] * width + j[None, :], total, mask=head[:, None] & column)
    carried = inside & (i == t * tile) & (key == before)
    tl.store(parts + i[:, None] * 0 + t.to(tl.int64) * width + j[None, :], total, mask=carried[:, None] & column)
    if with_norms:
        following = tl.load(keys + start + (t + 1) * tile, mask=(t + 1) * tile < n, other=-1)
        complete = head & (key != following)
        square = tl.sum(tl.sum(tl.where(complete[:, None], total * total, 0.0), axis=1), axis=0)
        tl.store(norms + t * tl.num_programs(1) + tl.program_id(1), tl.sqrt(square))


@triton.jit(do_not_specialize=["start", "n"])
def _join_parts(
    keys, sums, parts, norms, start, n, width: tl.constexpr,
    by_id: tl.constexpr, with_norms: tl.constexpr, tile: tl.constexpr, cols: tl.constexpr,
):  # fmt: skip
    """Complete the segment that begins in a tile and goes on after it."""
    t = tl.program_id(0)
    i = t * tile + tl.arange(0, tile)
    j = tl.program_id(1) * cols + tl.arange(0, cols)
    column = j < width
    end = (t + 1) * tile
    key = tl.load(keys + start + end - 1, mask=end < n, other=-1)
    following = tl.load(keys + start + end, mask=end < n, other=-2)
    before = tl.load(keys + start + t * tile - 1, mask=(t > 0) & (end < n), other=-1)
    square = 0.0
    if (key == following) & (before != key):
        inside = tl.load(keys + start + i, mask=i < n, other=-1)
        head = t * tile + tl.sum((inside != key).to(tl.int32), axis=0)
        at = sums + (key if by_id else head).to(tl.int64) * width + j
        total = tl.load(at, mask=column, other=0.0)
        first = t + 1
        more = True
        while more:
            u = first + tl.arange(0, tile)
            here = tl.load(keys + start + u.to(tl.int64) * tile, mask=u.to(tl.int64) * tile < n, other=-1) == key
            part = tl.load(parts + u[:, None].to(tl.int64) * width + j[None, :], mask=here[:, None] & column[None, :], other=0.0)
            total += tl.sum(part, axis=0)
            first += tile
            more = tl.sum(here.to(tl.int32), axis=0) == tile
        tl.store(at, total, mask=column)
        square = tl.sum(total * total, axis=0)
    if with_norms:
        tl.store(norms + t * tl.num_programs(1) + tl.program_id(1), tl.sqrt(square))


def segment_sums(
    segments: Segments, rows: Tensor, sums: Tensor, start: int = 0, *, by_id: bool = False, with_norms: bool = False
) -> Tensor | None:
    """Write the sum of every segment of rows with equal ids; the rest of `sums` stays as it is.

    Args:
        segments: the sorted ids, those of `rows` at the positions from `start` to `start + n`; no segment crosses their ends.
        rows: fp32 or bf16 [n, r], in the order before sorting (there they began at `start`, too).
        sums: fp32, contiguous: [V, r], written at the row of the id where `by_id`, otherwise [n, r], written at the position of the head.
        start: the first position.
        by_id: where to write.
        with_norms: whether to return numbers [...] whose norm is the norm of all sums.
    """
    n, width = rows.shape
    tiles = triton.cdiv(n, _TILE)
    cols = min(_MOST_COLUMNS, max(_FEWEST_COLUMNS, triton.next_power_of_2(width)))
    grid = (tiles, triton.cdiv(width, cols))
    parts = sums.new_empty(tiles, width)
    norms = sums.new_empty(1 if tiles == 1 else 2, *grid) if with_norms else None
    of_tiles, of_long = (parts, parts) if norms is None else (norms[0], norms[-1])
    if n:
        rows, flags = rows.contiguous(), (by_id, with_norms, _TILE, cols)
        _tile_sums[grid](segments.keys, segments.order, rows, sums, parts, of_tiles, start, n, width, *flags)
    if tiles > 1:
        _join_parts[grid](segments.keys, sums, parts, of_long, start, n, width, *flags)
    return norms
