"""The row-wise optimisers of memory tables. Rows in bf16 are rounded stochastically, with the bits of `rounding.round_at_random`."""

import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu import step_numbers
from engram.kernels.gpu.row_sums import RowSums

_RATE = tl.constexpr(step_numbers.TABLE_RATE)
_CORRECTION1 = tl.constexpr(step_numbers.CORRECTION1)
_CORRECTION2 = tl.constexpr(step_numbers.CORRECTION2)
_ROUNDING_KEY = tl.constexpr(step_numbers.ROUNDING_KEY)
_TILE = 2048
"""About how many numbers of the sums a program looks at."""


@triton.jit
def _rounded(x, key):
    """fp32 -> bf16, one of the two neighbours, by a hash of the number and the step's key."""
    bits = x.to(tl.uint32, bitcast=True)
    mixed = bits ^ key
    mixed = (mixed ^ (mixed >> 16)) * 0x85EBCA6B
    mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35
    mixed = mixed ^ (mixed >> 16)
    up = (bits + (mixed & 0xFFFF)) & 0xFFFF0000
    finite = (bits & 0x7F800000) != 0x7F800000
    return tl.where(finite, up.to(tl.float32, bitcast=True), x).to(tl.bfloat16)


@triton.jit
def _heads(keys, start, base, n, tile: tl.constexpr):
    """Positions of a tile, whether a segment begins there, and its row."""
    i = tl.program_id(0) * tile + tl.arange(0, tile)
    key = tl.load(keys + start + i, mask=i < n, other=-1)
    before = tl.load(keys + start + i - 1, mask=(i > 0) & (i < n), other=-1)
    return i.to(tl.int64), (i < n) & (key != before), (key - base).to(tl.int64)


@triton.jit
def _clipped(sums, at, mask, norm, limit):
    factor = limit / (tl.load(norm) + 1e-6)
    return tl.load(sums + at, mask=mask, other=0.0) * tl.where(factor > 1, 1.0, factor)  # NaN stays


@triton.jit
def _store(weight, at, mask, x, numbers):
    if weight.dtype.element_ty == tl.bfloat16:
        key = tl.load(numbers + _ROUNDING_KEY).to(tl.uint32, bitcast=True)
        tl.store(weight + at, _rounded(x, key), mask=mask)
    else:
        tl.store(weight + at, x, mask=mask)


@triton.jit(do_not_specialize=["start", "base", "n"])
def _adam(
    weight, first, second, keys, sums, numbers, norm, limit, start, base, n, width: tl.constexpr, gain1, beta2, gain2, eps,
    tile: tl.constexpr, cols: tl.constexpr,
):  # fmt: skip
    i, head, row = _heads(keys, start, base, n, tile)
    j = tl.arange(0, cols)
    mask = head[:, None] & (j < width)[None, :]
    at = row[:, None] * width + j[None, :]
    g = _clipped(sums, i[:, None] * width + j[None, :], mask, norm, limit)
    m = tl.load(first + at, mask=mask, other=0.0)
    v = tl.load(second + at, mask=mask, other=0.0)
    w = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
    m += (g - m) * gain1
    v = v * beta2 + g * g * gain2
    step = (m / tl.load(numbers + _CORRECTION1)) / (tl.sqrt(v / tl.load(numbers + _CORRECTION2)) + eps)
    tl.store(first + at, m, mask=mask)
    tl.store(second + at, v, mask=mask)
    _store(weight, at, mask, w - tl.load(numbers + _RATE) * step, numbers)


@triton.jit(do_not_specialize=["start", "base", "n"])
def _adagrad(
    weight, squares, keys, sums, numbers, norm, limit, start, base, n, width: tl.constexpr, eps, tile: tl.constexpr, cols: tl.constexpr,
):  # fmt: skip
    i, head, row = _heads(keys, start, base, n, tile)
    j = tl.arange(0, cols)
    mask = head[:, None] & (j < width)[None, :]
    at = row[:, None] * width + j[None, :]
    g = _clipped(sums, i[:, None] * width + j[None, :], mask, norm, limit)
    w = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
    total = tl.load(squares + row, mask=head, other=0.0) + tl.sum(g * g, axis=1) / width
    tl.store(squares + row, total, mask=head)
    _store(weight, at, mask, w - tl.load(numbers + _RATE) * g / (tl.sqrt(total) + eps)[:, None], numbers)


def adam(
    weight: Tensor, moments: tuple[Tensor, Tensor], gradients: RowSums, numbers: Tensor, betas: tuple[float, float], eps: float
) -> None:
    """Adam on the rows that have a gradient, in place.

    Args:
        weight: fp32 or bf16 [V, r].
        moments: first and second, fp32 [V, r] each.
        gradients: of this table.
        numbers: fp32, as `StepScalars.on_device`.
        betas: decay of the moments.
        eps: added to the root of the second moment.
    """
    grid, arguments, shape = _launch(gradients, numbers)
    gains = 1 - betas[0], betas[1], 1 - betas[1]
    _adam[grid](weight, *moments, *arguments, *gains, eps, *shape)


def adagrad(weight: Tensor, squares: Tensor, gradients: RowSums, numbers: Tensor, eps: float) -> None:
    """Row-wise AdaGrad with its sums of squares fp32 [V, 1], in place; see `adam`."""
    grid, arguments, shape = _launch(gradients, numbers)
    _adagrad[grid](weight, squares, *arguments, eps, *shape)


def _launch(gradients: RowSums, numbers: Tensor) -> tuple[tuple[int], tuple[object, ...], tuple[int, int]]:
    n, width = gradients.sums.shape
    cols = triton.next_power_of_2(width)
    tile = max(1, _TILE // cols)
    tensors = gradients.keys, gradients.sums, numbers, gradients.norm
    return (triton.cdiv(n, tile),), (*tensors, gradients.limit, gradients.start, gradients.base, n, width), (tile, cols)
