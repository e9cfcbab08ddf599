"""Muon (`training.optimizers.muon`) for many matrices in one launch.

A small matrix goes through its whole step inside one program, in registers and shared memory. Larger ones are multiplied by the GPU's own
library, all of one shape together, with one kernel before and one after that, and one on the small Gram matrices of every iteration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu import together

_SCALE = tl.constexpr(0.2)
_FEWEST = 16
"""The least side of a product on tensor cores."""
_TILE = 2048
_COLUMNS = 5


@dataclass(frozen=True)
class Rule:
    """The numbers of Muon's rule."""

    momentum: float
    weight_decay: float
    iterations: int
    coefficients: tuple[float, float, float]
    eps: float
    dtype: torch.dtype
    """Of the products: bf16 or fp32."""


@dataclass(frozen=True)
class Launch:
    """Matrices of several weights that a kernel updates together."""

    members: list[int]
    """Numbers of the weights, up to `together.MOST`."""
    table: Tensor
    """Of each matrix: the weight's place in `members`, its offset there, its sides a, b, and the distance of its rows, int64 [n, 5]."""
    sides: tuple[int, int]
    """a, b: padded to powers of two where `inside`."""
    inside: bool
    """Whether a program holds the whole matrix."""


def plan(matrices: Sequence[Tensor], dtype: torch.dtype, at_once: int) -> list[Launch]:
    """How to update weights, given as views of contiguous tensors [..., a, b] whose rows are contiguous.

    Args:
        matrices: one view for each weight.
        dtype: of the products.
        at_once: about the most numbers of a launch of large matrices.
    """
    launches: dict[tuple[bool, int, int], list[list[int]]] = {}
    for number, view in enumerate(matrices):
        a, b = view.shape[-2:]
        padded = _padded(a), _padded(b)
        key = (True, *padded) if _fits(*padded, dtype) else (False, a, b)
        groups = launches.setdefault(key, [])
        full = not groups or len(groups[-1]) == together.MOST
        if full or (not key[0] and sum(matrices[other].numel() for other in groups[-1]) + view.numel() > at_once):
            groups.append([])
        groups[-1].append(number)
    return [
        Launch(members, _table([matrices[number] for number in members]), (a, b), inside)
        for (inside, a, b), groups in launches.items()
        for members in groups
    ]


def _padded(side: int) -> int:
    return max(_FEWEST, triton.next_power_of_2(side))


def _fits(a: int, b: int, dtype: torch.dtype) -> bool:
    short, long = min(a, b), max(a, b)
    if dtype != torch.bfloat16:
        return long <= 64
    return long <= 128 or (short <= 64 and long <= 256)


def _table(views: Sequence[Tensor]) -> Tensor:
    rows = []
    for member, view in enumerate(views):
        a, b = view.shape[-2:]
        places = torch.zeros(view.shape[:-2], dtype=torch.int64)
        for dim, (size, stride) in enumerate(zip(view.shape[:-2], view.stride()[:-2], strict=True)):
            places += (torch.arange(size) * stride).view(-1, *[1] * (places.ndim - 1 - dim))
        places = places.flatten()
        same = torch.tensor([a, b, view.stride(-2)]).expand(len(places), 3)
        rows.append(torch.cat([torch.full((len(places), 1), member), places[:, None], same], dim=1))
    return torch.cat(rows).to(views[0].device)


@triton.jit
def _matrix(table, columns: tl.constexpr):
    row = table + tl.program_id(0).to(tl.int64) * columns
    a, b, stride = tl.load(row + 2).to(tl.int32), tl.load(row + 3).to(tl.int32), tl.load(row + 4).to(tl.int32)
    return tl.load(row), tl.load(row + 1), a, b, stride


@triton.jit
def _nesterov(buffer, grad, place, mask, factor, momentum):
    """Update the momentum in place, and look ahead."""
    g = tl.load(grad + place, mask=mask, other=0.0) * tl.load(factor)
    m = tl.load(buffer + place, mask=mask, other=0.0)
    m += (g - m) * (1 - momentum)
    tl.store(buffer + place, m, mask=mask)
    return g + (m - g) * momentum


@triton.jit
def _change(weight, place, mask, update, a, b, rate, weight_decay):
    r = tl.load(rate)
    w = tl.load(weight + place, mask=mask, other=0.0)
    scale = _SCALE * tl.sqrt(tl.maximum(a, b).to(tl.float32))
    tl.store(weight + place, w * (1 - r * weight_decay) - (r * scale) * update, mask=mask)


@triton.jit(do_not_specialize=["iterations"])
def _inside(
    weights, buffers, grads, table, rate, factor, momentum, weight_decay, iterations, linear, cubic, quintic, eps,
    rows: tl.constexpr, cols: tl.constexpr, in_bf16: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.bfloat16 if in_bf16 else tl.float32
    member, offset, a, b, stride = _matrix(table, columns)
    i, j = tl.arange(0, rows)[:, None], tl.arange(0, cols)[None, :]
    buffer, grad = together.pick(buffers, member) + offset, together.pick(grads, member) + offset
    ahead = _nesterov(buffer, grad, i * stride + j, (i < a) & (j < b), factor, momentum)
    ahead = ahead / tl.maximum(tl.sqrt(tl.sum(tl.sum(ahead * ahead, axis=1), axis=0)), eps)
    x = (tl.trans(ahead) if rows > cols else ahead).to(dtype)  # the Gram matrix is the small one
    for _ in range(iterations):
        gram = tl.dot(x, tl.trans(x), input_precision="ieee")
        factors = gram.to(dtype)
        poly = (cubic * gram + quintic * tl.dot(factors, factors, input_precision="ieee")).to(dtype)
        x = (linear * x.to(tl.float32) + tl.dot(poly, x, input_precision="ieee")).to(dtype)
    update = (tl.trans(x) if rows > cols else x).to(tl.float32)
    member, offset, a, b, stride = _matrix(table, columns)  # read again rather than kept, with all places, in registers
    _change(together.pick(weights, member) + offset, i * stride + j, (i < a) & (j < b), update, a, b, rate, weight_decay)


@triton.jit
def _tile(a, b, stride, rows: tl.constexpr, cols: tl.constexpr):
    """A program's tile of its matrix: places in the weight, places in a contiguous matrix, and which of them exist."""
    tiles = tl.cdiv(b, cols)
    i = (tl.program_id(1) // tiles) * rows + tl.arange(0, rows)[:, None]
    j = (tl.program_id(1) % tiles) * cols + tl.arange(0, cols)[None, :]
    return i * stride + j, i * b + j, (i < a) & (j < b)


@triton.jit
def _before(buffers, grads, table, stack, squares, factor, momentum, rows: tl.constexpr, cols: tl.constexpr, columns: tl.constexpr):
    member, offset, a, b, stride = _matrix(table, columns)
    place, at, mask = _tile(a, b, stride, rows, cols)
    buffer, grad = together.pick(buffers, member) + offset, together.pick(grads, member) + offset
    ahead = _nesterov(buffer, grad, place, mask, factor, momentum)
    ahead = ahead.to(stack.dtype.element_ty)
    tl.store(stack + tl.program_id(0).to(tl.int64) * (a * b) + at, ahead, mask=mask)
    wide = ahead.to(tl.float32)
    tl.store(squares + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.sum(tl.sum(wide * wide, axis=1), axis=0))


@triton.jit(do_not_specialize=["side", "parts"])
def _polynomial(
    gram, square, squares, side, parts, linear, cubic, quintic, eps, first: tl.constexpr, tile: tl.constexpr, parts_tile: tl.constexpr
):
    """linear I + cubic G + quintic G^2, for the Gram matrix G of what has norm 1; at first the matrix is not divided by its norm yet."""
    scale = 1.0
    if first:
        total = tl.zeros((parts_tile,), tl.float32)
        for start in range(0, parts, parts_tile):
            k = start + tl.arange(0, parts_tile)
            total += tl.load(squares + tl.program_id(0) * parts + k, mask=k < parts, other=0.0)
        scale = 1.0 / tl.maximum(tl.sqrt(tl.sum(total, axis=0)), eps)
    at = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = at < side * side
    place = tl.program_id(0).to(tl.int64) * side * side + at
    g = tl.load(gram + place, mask=inside, other=0.0).to(tl.float32) * (scale * scale)
    g2 = tl.load(square + place, mask=inside, other=0.0).to(tl.float32) * (scale * scale) * (scale * scale)
    identity = tl.where(at // side == at % side, linear, 0.0)
    tl.store(square + place, (scale * (identity + cubic * g + quintic * g2)).to(square.dtype.element_ty), mask=inside)


@triton.jit
def _after(weights, table, stack, rate, weight_decay, rows: tl.constexpr, cols: tl.constexpr, columns: tl.constexpr):
    member, offset, a, b, stride = _matrix(table, columns)
    place, at, mask = _tile(a, b, stride, rows, cols)
    update = tl.load(stack + tl.program_id(0).to(tl.int64) * (a * b) + at, mask=mask, other=0.0).to(tl.float32)
    _change(together.pick(weights, member) + offset, place, mask, update, a, b, rate, weight_decay)


def step(
    launch: Launch, weights: Sequence[Tensor], buffers: Sequence[Tensor], grads: Sequence[Tensor], rate: Tensor, factor: Tensor, rule: Rule
) -> None:
    """Update the weights of a launch and their momentum, in place.

    Args:
        launch: which.
        weights: all weights of the plan, fp32, as they lie in memory.
        buffers: their momentum.
        grads: their gradients.
        rate: learning rate, fp32 [].
        factor: what the gradients are multiplied with, fp32 [].
        rule: the numbers of the method.
    """
    of_weights, of_buffers, of_grads = (
        together.filled([tensors[number] for number in launch.members]) for tensors in (weights, buffers, together.readable(grads))
    )
    if launch.inside:
        numbers = rule.momentum, rule.weight_decay, rule.iterations, *rule.coefficients, rule.eps
        warps = _warps(*launch.sides)
        flags = *launch.sides, rule.dtype == torch.bfloat16, _COLUMNS
        _inside[(len(launch.table),)](of_weights, of_buffers, of_grads, launch.table, rate, factor, *numbers, *flags, num_warps=warps)
    else:
        _large_step(launch, of_weights, of_buffers, of_grads, rate, factor, rule)


def _warps(a: int, b: int) -> int:
    return 4 if a * b <= 4096 else 8


def _large_step(
    launch: Launch,
    weights: tuple[Tensor, ...],
    buffers: tuple[Tensor, ...],
    grads: tuple[Tensor, ...],
    rate: Tensor,
    factor: Tensor,
    rule: Rule,
) -> None:
    table, (a, b) = launch.table, launch.sides
    cols = min(256, triton.next_power_of_2(b))
    rows = _TILE // cols
    grid = (len(table), triton.cdiv(a, rows) * triton.cdiv(b, cols))
    x = rate.new_empty((len(table), a, b), dtype=rule.dtype)
    squares = rate.new_empty(grid)
    _before[grid](buffers, grads, table, x, squares, factor, rule.momentum, rows, cols, _COLUMNS)
    tall, side = a > b, min(a, b)
    of_iterations = (len(table), triton.cdiv(side * side, _TILE))
    for iteration in range(rule.iterations):
        gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
        poly = torch.bmm(gram, gram)
        numbers = side, grid[1], *rule.coefficients, rule.eps
        _polynomial[of_iterations](gram, poly, squares, *numbers, iteration == 0, _TILE, 64)
        x = torch.bmm(x, poly) if tall else torch.bmm(poly, x)
    _after[grid](weights, table, x, rate, rule.weight_decay, rows, cols, _COLUMNS)
