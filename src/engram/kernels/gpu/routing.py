"""Choice of experts and their gate weights, with the gradient of the logits: one kernel each way."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu.products import wide_product

_TILE = 1024
_MOST_EXPERTS = 1024


@triton.jit(do_not_specialize=["rows", "experts", "stride", "second"])
def _route_forward(
    logits, bias, weights, chosen, picked, rows, experts, stride, second, scale,
    k: tl.constexpr, halves: tl.constexpr, block_k: tl.constexpr, block_e: tl.constexpr, block_rows: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    expert = tl.arange(0, block_e)
    here, real = row < rows, expert < experts
    at, mask = logits + row[:, None] * stride + expert[None, :], here[:, None] & real[None, :]
    values = tl.load(at, mask=mask, other=0.0)
    if halves:  # the logits are the sums of two parts
        values += tl.load(at + second, mask=mask, other=0.0)
    scores = tl.sigmoid(values)
    keys = scores + tl.load(bias + expert, mask=real, other=0.0)[None, :]
    keys = tl.where(keys == keys, keys, -1e30)  # a step that has gone wrong must still choose experts that exist
    keys = tl.where(real[None, :], keys, float("-inf"))
    place = tl.arange(0, block_k)
    numbers = tl.zeros([block_rows, block_k], dtype=tl.int64)
    kept = tl.zeros([block_rows, block_k], dtype=tl.float32)
    for j in tl.static_range(k):
        best = tl.argmax(keys, 1)  # the lower number of equals
        found = expert[None, :] == best[:, None]
        score = tl.sum(tl.where(found, scores, 0.0), 1)
        keys = tl.where(found, float("-inf"), keys)
        numbers = tl.where((place == j)[None, :], best[:, None].to(tl.int64), numbers)
        kept = tl.where((place == j)[None, :], score[:, None], kept)
    at, mask = row[:, None] * k + place[None, :], here[:, None] & (place < k)[None, :]
    tl.store(chosen + at, numbers, mask=mask)
    tl.store(picked + at, kept, mask=mask)
    tl.store(weights + at, scale * kept / (tl.sum(kept, 1) + 1e-20)[:, None], mask=mask)


@triton.jit(do_not_specialize=["rows", "columns"])
def _route_backward(
    grad, chosen, picked, grad_logits, rows, columns, scale, k: tl.constexpr, block_e: tl.constexpr, block_rows: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    expert = tl.arange(0, block_e)
    here = row < rows
    total = tl.zeros([block_rows], dtype=tl.float32) + 1e-20
    along = tl.zeros([block_rows], dtype=tl.float32)
    for j in tl.static_range(k):
        score = tl.load(picked + row * k + j, mask=here, other=0.0)
        total += score
        along += score * tl.load(grad + row * k + j, mask=here, other=0.0)
    result = tl.zeros([block_rows, block_e], dtype=tl.float32)
    for j in tl.static_range(k):
        score = tl.load(picked + row * k + j, mask=here, other=0.0)
        slope = scale * (tl.load(grad + row * k + j, mask=here, other=0.0) - along / total) / total
        number = tl.load(chosen + row * k + j, mask=here, other=0).to(tl.int32)
        result += tl.where(expert[None, :] == number[:, None], (slope * score * (1 - score))[:, None], 0.0)
    to = grad_logits + row[:, None] * columns + expert[None, :]
    tl.store(to, result.to(grad_logits.dtype.element_ty), mask=here[:, None] & (expert < columns)[None, :])


def _blocks(experts: int) -> tuple[int, int]:
    block_e = max(16, triton.next_power_of_2(experts))
    return block_e, _TILE // block_e


def _choose(logits: Tensor, bias: Tensor, k: int, scale: float, halves: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gate weights [N, k], experts [N, k] and their scores [N, k]; logits [N, E], or [N, 2 E'] in two `halves`, E' >= E, to be added."""
    (n, columns), experts = logits.shape, len(bias)
    weights, picked = logits.new_empty(n, k), logits.new_empty(n, k)
    chosen = logits.new_empty(n, k, dtype=torch.int64)
    block_e, block_rows = _blocks(experts)
    _route_forward[(triton.cdiv(n, block_rows),)](
        logits.contiguous(), bias.contiguous(), weights, chosen, picked, n, experts, columns, columns // 2, scale,
        k, halves, triton.next_power_of_2(k), block_e, block_rows,
    )  # fmt: skip
    return weights, chosen, picked


def _slopes(grad: Tensor, chosen: Tensor, picked: Tensor, columns: int, dtype: torch.dtype, scale: float) -> Tensor:
    """The gradient of the logits, [N, columns] in `dtype`; there may be more columns than experts."""
    (n, k), result = chosen.shape, picked.new_empty(len(chosen), columns, dtype=dtype)
    block_e, block_rows = _blocks(columns)
    _route_backward[(triton.cdiv(n, block_rows),)](grad.contiguous(), chosen, picked, result, n, columns, scale, k, block_e, block_rows)
    return result


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor]:
        weights, chosen, picked = _choose(logits, bias, k, scale, halves=False)
        ctx.save_for_backward(chosen, picked)
        ctx.experts, ctx.scale = logits.shape[1], scale
        ctx.mark_non_differentiable(chosen)
        return weights, chosen

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        chosen, picked = ctx.saved_tensors
        return _slopes(grad, chosen, picked, ctx.experts, torch.float32, ctx.scale), None, None, None


@triton.jit(do_not_specialize=["numbers", "padded"])
def _split(weight, result, numbers, padded, block: tl.constexpr):
    """fp32 numbers as sums of two bf16 ones: the first parts, zeros up to `padded`, the second parts, zeros up to twice that."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    values = tl.load(weight + at, mask=at < numbers, other=0.0)
    high = values.to(tl.bfloat16)
    tl.store(result + at, high, mask=at < padded)
    tl.store(result + padded + at, (values - high.to(tl.float32)).to(tl.bfloat16), mask=at < padded)


class _RouteTokens(torch.autograd.Function):
    """Tokens are bf16: the product with a router's fp32 weights is that with two bf16 parts of them, exact to 16 bits, in half the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        experts, d = weight.shape
        columns = triton.cdiv(experts, 8) * 8  # whole 16 bytes
        parts = torch.empty(2, columns, d, dtype=torch.bfloat16, device=x.device)
        _split[(triton.cdiv(columns * d, _TILE),)](weight.contiguous(), parts, experts * d, columns * d, _TILE)
        logits = wide_product(x, parts.flatten(0, 1).t())  # [N, 2 E']
        weights, chosen, picked = _choose(logits, bias, k, scale, halves=True)
        ctx.save_for_backward(x, parts, chosen, picked)
        ctx.experts, ctx.scale = experts, scale
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(chosen)
        return weights, chosen, x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None, grad_tokens: Tensor | None) -> tuple[Tensor | None, ...]:
        x, parts, chosen, picked = ctx.saved_tensors
        slopes = _slopes(grad, chosen, picked, parts.shape[1], torch.bfloat16, ctx.scale)  # [N, E']
        grad_weight = wide_product(slopes.t(), x)[: ctx.experts]
        with torch.autocast(x.device.type, enabled=False):
            if grad_tokens is None:
                return slopes @ parts[0], grad_weight, None, None, None
            # In place: it is the experts', who hand it to nobody else; a sum of its own would read and write it all once more.
            return grad_tokens.addmm_(slopes, parts[0]), grad_weight, None, None, None


def takes(experts: int) -> bool:
    """Whether a row of so many experts fits a program."""
    return experts <= _MOST_EXPERTS


def route(logits: Tensor, bias: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor]:
    """Sigmoid scores of fp32 logits [N, E], top-k by score plus bias [E].

    Returns gate weights fp32 [N, k] summing to `scale`, and experts int64 [N, k], from the highest score plus bias; of equals the lower.
    """
    weights, chosen = _Route.apply(logits, bias, k, scale)
    return weights, chosen


def route_tokens(x: Tensor, weight: Tensor, bias: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """`route` on the product of tokens bf16 [N, d] with a router's weights fp32 [E, d].

    Returns besides the tokens, for who else reads them: the product that gives the router's gradient is added to the gradient that comes
    back to these, which is overwritten.
    """
    weights, chosen, tokens = _RouteTokens.apply(x, weight, bias, k, scale)
    return weights, chosen, tokens
