"""Choice of experts and their gate weights, with the gradient of the logits: one kernel each way."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 1024
_MOST_EXPERTS = 1024


@triton.jit(do_not_specialize=["rows", "experts"])
def _route_forward(
    logits, bias, weights, chosen, picked, rows, experts, scale,
    k: tl.constexpr, block_k: tl.constexpr, block_e: tl.constexpr, block_rows: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    expert = tl.arange(0, block_e)
    here, real = row < rows, expert < experts
    values = tl.load(logits + row[:, None] * experts + expert[None, :], mask=here[:, None] & real[None, :], other=0.0)
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


@triton.jit(do_not_specialize=["rows", "experts"])
def _route_backward(
    grad, chosen, picked, grad_logits, rows, experts, scale, k: tl.constexpr, block_e: tl.constexpr, block_rows: tl.constexpr
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
    tl.store(grad_logits + row[:, None] * experts + expert[None, :], result, mask=here[:, None] & (expert < experts)[None, :])


def _blocks(experts: int) -> tuple[int, int]:
    block_e = max(16, triton.next_power_of_2(experts))
    return block_e, _TILE // block_e


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor]:
        n, experts = logits.shape
        weights, picked = logits.new_empty(n, k), logits.new_empty(n, k)
        chosen = logits.new_empty(n, k, dtype=torch.int64)
        block_e, block_rows = _blocks(experts)
        grid = (triton.cdiv(n, block_rows),)
        _route_forward[grid](
            logits.contiguous(), bias.contiguous(), weights, chosen, picked, n, experts, scale,
            k, triton.next_power_of_2(k), block_e, block_rows,
        )  # fmt: skip
        ctx.save_for_backward(chosen, picked)
        ctx.experts, ctx.scale = experts, scale
        ctx.mark_non_differentiable(chosen)
        return weights, chosen

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        chosen, picked = ctx.saved_tensors
        n, k = chosen.shape
        grad_logits = picked.new_empty(n, ctx.experts)
        block_e, block_rows = _blocks(ctx.experts)
        grid = (triton.cdiv(n, block_rows),)
        _route_backward[grid](grad.contiguous(), chosen, picked, grad_logits, n, ctx.experts, ctx.scale, k, block_e, block_rows)
        return grad_logits, None, None, None


def takes(experts: int) -> bool:
    """Whether a row of so many experts fits a program."""
    return experts <= _MOST_EXPERTS


def route(logits: Tensor, bias: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor]:
    """Sigmoid scores of fp32 logits [N, E], top-k by score plus bias [E].

    Returns gate weights fp32 [N, k] summing to `scale`, and experts int64 [N, k], from the highest score plus bias; of equals the lower.
    """
    weights, chosen = _Route.apply(logits, bias, k, scale)
    return weights, chosen
