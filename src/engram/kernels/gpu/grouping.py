"""Assignments of tokens to experts, by expert: a counting sort in two kernels, without PyTorch's sort of 64-bit keys."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_CHUNK_TILE = 8192
_BLOCKS = 256
"""Most blocks of assignments: every block reads the counts of all."""


@dataclass(frozen=True)
class Groups:
    """Assignments (token * k + place among its experts) by expert, in the order of tokens.

    A grouped product gives each program one tile: up to `tile` rows, all of one expert.
    """

    order: Tensor
    """Assignments by expert, int32 [N k]."""
    place: Tensor
    """Its inverse: where each assignment stands, int32 [N k]."""
    starts: Tensor
    """First row of each expert, and N k, int32 [E + 1]."""
    tile_ends: Tensor
    """Tiles of each expert and those before it, int32 [E]."""
    load: Tensor
    """Rows of each expert, int64 [E]."""
    tile: int
    """Most rows of a tile."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The fields in their order, but for `tile`."""
        return self.order, self.place, self.starts, self.tile_ends, self.load

    @property
    def most_tiles(self) -> int:
        """Tiles if every expert's last one were almost empty."""
        return triton.cdiv(len(self.order), self.tile) + len(self.load)


@triton.jit
def _one_hot(chosen, chunk, assignments, experts, block_e: tl.constexpr, block: tl.constexpr):
    number = chunk * block + tl.arange(0, block)
    mine = tl.load(chosen + number, mask=number < assignments, other=experts).to(tl.int32)
    expert = tl.arange(0, block_e)
    return number, ((mine[:, None] == expert[None, :]) & (number < assignments)[:, None]).to(tl.int32)


@triton.jit(do_not_specialize=["assignments", "experts", "chunks"])
def _count(chosen, counts, assignments, experts, chunks, block_e: tl.constexpr, block: tl.constexpr):
    """counts [blocks, block_e]: how many assignments of each block of `chunks` * `block` go to each expert."""
    first = tl.program_id(0) * chunks
    total = tl.zeros([block_e], dtype=tl.int32)
    for chunk in range(chunks):
        _, hits = _one_hot(chosen, first + chunk, assignments, experts, block_e, block)
        total += tl.sum(hits, 0)
    tl.store(counts + tl.program_id(0) * block_e + tl.arange(0, block_e), total)


@triton.jit(do_not_specialize=["assignments", "experts", "chunks", "blocks"])
def _place(
    chosen, counts, order, place, starts, tile_ends, load, assignments, experts, chunks, blocks,
    tile: tl.constexpr, block_e: tl.constexpr, block: tl.constexpr, block_rows: tl.constexpr,
):  # fmt: skip
    """Adds the counts of all blocks and of those before its own, and puts its assignments where they belong."""
    own, expert = tl.program_id(0), tl.arange(0, block_e)
    total = tl.zeros([block_e], dtype=tl.int32)
    before = tl.zeros([block_e], dtype=tl.int32)
    for first in range(0, blocks, block_rows):
        row = first + tl.arange(0, block_rows)
        some = tl.load(counts + row[:, None] * block_e + expert[None, :], mask=(row < blocks)[:, None], other=0)
        total += tl.sum(some, 0)
        before += tl.sum(tl.where((row < own)[:, None], some, 0), 0)
    ends = tl.cumsum(total, 0)
    if own == 0:
        real = expert < experts
        tl.store(starts + expert + 1, ends, mask=real)
        tl.store(starts + expert, tl.zeros([block_e], dtype=tl.int32), mask=expert == 0)
        tl.store(tile_ends + expert, tl.cumsum((total + tile - 1) // tile, 0), mask=real)
        tl.store(load + expert, total.to(tl.int64), mask=real)
    following = ends - total + before  # [E]: where the next assignment to each expert goes
    for chunk in range(chunks):
        number, hits = _one_hot(chosen, own * chunks + chunk, assignments, experts, block_e, block)
        rank = tl.cumsum(hits, 0) - 1 + following[None, :]
        target = tl.sum(rank * hits, 1)
        real = number < assignments
        tl.store(place + number, target, mask=real)
        tl.store(order + target, number, mask=real)
        following += tl.sum(hits, 0)


def expert_block(experts: int) -> int:
    """The number of experts, rounded up so that all usual ones share compiled kernels."""
    return max(128, triton.next_power_of_2(experts))


def grouped(chosen: Tensor, experts: int, tile: int) -> Groups:
    """Group the assignments of tokens to experts, int64 or int32 [N, k], into tiles of at most `tile` rows."""
    chosen = chosen.contiguous()
    n, integers = chosen.numel(), {"dtype": torch.int32, "device": chosen.device}
    block_e = expert_block(experts)
    block = max(16, _CHUNK_TILE // block_e)
    chunks = triton.cdiv(triton.cdiv(n, block), _BLOCKS)
    blocks = triton.cdiv(n, block * chunks)
    counts = torch.empty(blocks, block_e, **integers)  # type: ignore[call-overload]
    order, place, starts, tile_ends = (torch.empty(size, **integers) for size in (n, n, experts + 1, experts))  # type: ignore[call-overload]
    load = torch.empty(experts, dtype=torch.int64, device=chosen.device)
    _count[(blocks,)](chosen, counts, n, experts, chunks, block_e, block)
    _place[(blocks,)](chosen, counts, order, place, starts, tile_ends, load, n, experts, chunks, blocks, tile, block_e, block, block)
    return Groups(order, place, starts, tile_ends, load, tile)
