"""From token ids to table rows in one kernel; see `engram.memory.hashing`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 64
"""Tokens of a program."""


@triton.jit(do_not_specialize=["count", "length", "stride", "pad"])
def _rows(
    tokens, compression, multipliers, head_sizes, offsets, rows, count, length, stride, pad,
    orders: tl.constexpr, heads: tl.constexpr, cols: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Rows of a tile of tokens in one set of tables."""
    i = tl.program_id(0) * tile + tl.arange(0, tile)
    set_ = tl.program_id(1)
    head = tl.arange(0, cols)
    inside = i < count
    place = i % length
    at = (i // length).to(tl.int64) * stride + place
    token = tl.load(tokens + at, mask=inside, other=0)
    mix = tl.load(compression + token) * tl.load(multipliers + set_ * (orders + 1))
    out = rows + (set_.to(tl.int64) * count + i)[:, None] * (orders * heads) + head[None, :]
    mask = inside[:, None] & (head < heads)[None, :]
    for k in tl.static_range(1, orders + 1):
        before = inside & (place >= k)  # others stand before the start of their sequence
        token = tl.load(tokens + at - k, mask=before, other=0)
        canonical = tl.where(before, tl.load(compression + token), pad)
        mix = mix ^ (canonical * tl.load(multipliers + set_ * (orders + 1) + k))
        of_head = (set_ * orders + k - 1) * heads + head
        size = tl.load(head_sizes + of_head, mask=head < heads, other=1)
        row = mix[:, None] % size[None, :] + tl.load(offsets + of_head, mask=head < heads, other=0)[None, :]
        tl.store(out + (k - 1) * heads, row.to(tl.int32), mask=mask)


def rows(tokens: Tensor, compression: Tensor, multipliers: Tensor, head_sizes: Tensor, offsets: Tensor, heads: int, pad_id: int) -> Tensor:
    """The rows that whole sequences read, in all sets of tables.

    Args:
        tokens: int64 [B, T].
        compression: canonical id of every token, int64 [V].
        multipliers: int64 [sets, N].
        head_sizes: int64 [sets, H], orders outermost.
        offsets: first row of every head, int64 [sets, H].
        heads: heads per order.
        pad_id: canonical id that stands before the first token.

    Returns:
        int32 [sets, B, T, H]
    """
    batch, length = tokens.shape
    tokens = tokens if tokens.stride(1) == 1 or length == 1 else tokens.contiguous()
    sets, orders = len(multipliers), multipliers.shape[1] - 1
    out = torch.empty(sets, batch, length, orders * heads, dtype=torch.int32, device=tokens.device)
    grid = (triton.cdiv(batch * length, _TILE), sets)
    if tokens.numel():
        numbers = batch * length, length, tokens.stride(0), pad_id
        shape = orders, heads, triton.next_power_of_2(heads), _TILE
        _rows[grid](tokens, compression, multipliers, head_sizes, offsets, out, *numbers, *shape)
    return out
