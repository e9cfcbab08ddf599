"""Routed SwiGLU experts with their gradients: gather, products, activation and sum over a token's experts.

Forward, rows stand by expert: hidden = x[token] gate_up, rows = swiglu(hidden) out, y[token] = the sum of weight * rows. Backward, the gate
weight is moved in front of `out`: neither the rows nor anything else as wide as the model is kept, only `hidden`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels import gpu
from engram.kernels.gpu.casts import product_copy
from engram.kernels.gpu.grouped_products import grouped_product, inner_block, matrix_gradients, row_block, tile_rows, width_block
from engram.kernels.gpu.grouping import Groups, expert_block, grouped
from engram.kernels.gpu.rows import row_blocks
from engram.kernels.gpu.swiglu import activation, activation_gradients

_MOST_EXPERTS = 1024
_BACKWARD_ROWS = 64
"""Rows of a program that computes gradients of activations: with more, what it holds would not fit its registers."""


@triton.jit(do_not_specialize=["experts"])
def _activated(
    x, gate_up, order, starts, tile_ends, hidden, result, experts,
    k: tl.constexpr, d: tl.constexpr, w: tl.constexpr, keep: tl.constexpr,
    block_e: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr,
):  # fmt: skip
    """Rows of result [N k, w] = swiglu(hidden), where hidden [N k, 2 w] = x[token] gate_up[expert] is kept if need be."""
    columns: tl.constexpr = (w + block_n - 1) // block_n
    expert, start, end = tile_rows(tl.program_id(0) // columns, starts, tile_ends, experts, block_e, block_m)
    if start < end:
        line = tl.arange(0, block_m)
        here = line < end - start
        token = tl.load(order + start + line, mask=here, other=0) // k
        column = (tl.program_id(0) % columns) * block_n + tl.arange(0, block_n)
        at = tl.arange(0, block_k)
        a = x + token.to(tl.int64)[:, None] * d + at[None, :]
        b = gate_up + expert.to(tl.int64) * (2 * d * w) + at[:, None] * (2 * w) + column[None, :]
        gate = tl.zeros([block_m, block_n], dtype=tl.float32)
        up = tl.zeros([block_m, block_n], dtype=tl.float32)
        for first in range(0, d, block_k):
            left = tl.load(a, mask=here[:, None] & (first + at < d)[None, :], other=0.0)
            mask = (first + at < d)[:, None] & (column < w)[None, :]
            gate = tl.dot(left, tl.load(b, mask=mask, other=0.0), gate, input_precision="ieee")
            up = tl.dot(left, tl.load(b + w, mask=mask, other=0.0), up, input_precision="ieee")
            a += block_k
            b += block_k * 2 * w
        mask, long = here[:, None] & (column < w)[None, :], start.to(tl.int64)
        if keep:
            to = hidden + long * (2 * w) + line[:, None] * (2 * w) + column[None, :]
            tl.store(to, gate.to(hidden.dtype.element_ty), mask=mask)
            tl.store(to + w, up.to(hidden.dtype.element_ty), mask=mask)
        tl.store(result + long * w + line[:, None] * w + column[None, :], activation(gate, up).to(result.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["experts"])
def _activated_backward(
    grad, out, weights, hidden, order, starts, tile_ends, grad_hidden, weighted, grad_weights, experts,
    k: tl.constexpr, d: tl.constexpr, w: tl.constexpr, parts: tl.constexpr,
    block_e: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr,
):  # fmt: skip
    """From grad [N, d] of the mixture: grad_hidden [N k, 2 w], the weighted activations [N k, w] and grad_weights [N k] by token.

    A tile is shared by `parts` programs, each with all columns of its rows: it needs whole rows for grad_weights.
    """
    expert, start, end = tile_rows(tl.program_id(0) // parts, starts, tile_ends, experts, block_e, block_m * parts)
    start += (tl.program_id(0) % parts) * block_m
    if start < end:
        line = tl.arange(0, block_m)
        here = line < end - start
        assignment = tl.load(order + start + line, mask=here, other=0)
        weight = tl.load(weights + assignment, mask=here, other=0.0)
        at = tl.arange(0, block_k)
        a = grad + (assignment // k).to(tl.int64)[:, None] * d + at[None, :]
        out += expert.to(tl.int64) * (w * d)
        hidden += start.to(tl.int64) * (2 * w)
        grad_hidden += start.to(tl.int64) * (2 * w)
        weighted += start.to(tl.int64) * w
        along = tl.zeros([block_m], dtype=tl.float32)
        for begin in range(0, w, block_n):
            column = begin + tl.arange(0, block_n)
            b = out + column[None, :] * d + at[:, None]
            slope = tl.zeros([block_m, block_n], dtype=tl.float32)
            for first in range(0, d, block_k):
                left = tl.load(a + first, mask=here[:, None] & (first + at < d)[None, :], other=0.0)
                right = tl.load(b + first, mask=(first + at < d)[:, None] & (column < w)[None, :], other=0.0)
                slope = tl.dot(left, right, slope, input_precision="ieee")
            offset, mask = line[:, None] * (2 * w) + column[None, :], here[:, None] & (column < w)[None, :]
            gate = tl.load(hidden + offset, mask=mask, other=0.0).to(tl.float32)
            up = tl.load(hidden + offset + w, mask=mask, other=0.0).to(tl.float32)
            active = activation(gate, up)
            along += tl.sum(slope * active, 1)
            to = weighted + line[:, None] * w + column[None, :]
            tl.store(to, (weight[:, None] * active).to(weighted.dtype.element_ty), mask=mask)
            grad_gate, grad_up = activation_gradients(gate, up, weight[:, None] * slope)
            tl.store(grad_hidden + offset, grad_gate.to(grad_hidden.dtype.element_ty), mask=mask)
            tl.store(grad_hidden + offset + w, grad_up.to(grad_hidden.dtype.element_ty), mask=mask)
        tl.store(grad_weights + assignment, along, mask=here)


@triton.jit(do_not_specialize=["tokens"])
def _combine(
    rows, weights, place, added, result, tokens,
    k: tl.constexpr, d: tl.constexpr, weighted: tl.constexpr, adds: tl.constexpr, block_d: tl.constexpr, block_rows: tl.constexpr,
):  # fmt: skip
    """Row n of result [N, d] = the sum of the rows of its assignments, `weighted` or not, plus row n of `added` if it `adds`."""
    token = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    column = tl.arange(0, block_d)
    here = token < tokens
    mask = here[:, None] & (column < d)[None, :]
    at = token.to(tl.int64)[:, None] * d + column[None, :]
    total = tl.zeros([block_rows, block_d], dtype=tl.float32)
    if adds:
        total += tl.load(added + at, mask=mask, other=0.0).to(tl.float32)
    for j in tl.static_range(k):
        row = tl.load(place + token * k + j, mask=here, other=0).to(tl.int64)
        part = tl.load(rows + row[:, None] * d + column[None, :], mask=mask, other=0.0).to(tl.float32)
        if weighted:
            part *= tl.load(weights + token * k + j, mask=here, other=0.0)[:, None]
        total += part
    tl.store(result + at, total.to(result.dtype.element_ty), mask=mask)


def _combined(rows: Tensor, weights: Tensor, groups: Groups, weighted: bool, dtype: torch.dtype, added: Tensor | None = None) -> Tensor:
    (n, k), d = weights.shape, rows.shape[1]
    result = torch.empty(n, d, dtype=dtype, device=rows.device)
    block_d, block_rows = row_blocks(d)
    more = result if added is None else added.contiguous()
    _combine[(triton.cdiv(n, block_rows),)](
        rows, weights, groups.place, more, result, n, k, d, weighted, added is not None, block_d, block_rows
    )  # fmt: skip
    return result


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, out: Tensor, weights: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = gpu.product_dtype(x)
        tokens, ctx.x_dtype, keep = x, x.dtype, any(ctx.needs_input_grad)
        ctx.set_materialize_grads(False)
        # Weights are converted once: every tile of rows reads them again.
        x, gate_up, out = x.to(dtype).contiguous(), product_copy(gate_up, dtype), product_copy(out, dtype)
        weights = weights.float().contiguous()
        (n, k), (experts, w, d) = chosen.shape, out.shape
        groups = grouped(chosen, experts, row_block(n * k, experts, dtype))
        active = x.new_empty(n * k, w)
        hidden = x.new_empty(n * k, 2 * w) if keep else active
        block_n = width_block(w, dtype, most=64)
        _activated[(groups.most_tiles * triton.cdiv(w, block_n),)](
            x, gate_up, groups.order, groups.starts, groups.tile_ends, hidden, active, experts, k, d, w, keep,
            expert_block(experts), groups.tile, block_n, inner_block(d, dtype), num_warps=groups.tile // 16,
        )  # fmt: skip
        y = _combined(grouped_product(active, out, groups), weights, groups, True, dtype)
        if keep:
            ctx.save_for_backward(x, gate_up, out, weights, hidden, *groups.tensors)
            ctx.tile = groups.tile
        ctx.mark_non_differentiable(groups.load)
        return y, groups.load, tokens.view_as(tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None, grad_tokens: Tensor | None) -> tuple[Tensor | None, ...]:
        x, gate_up, out, weights, hidden, order, place, starts, tile_ends, load = ctx.saved_tensors
        groups = Groups(order, place, starts, tile_ends, load, ctx.tile)
        (n, k), (experts, w, d) = weights.shape, out.shape
        grad = grad.to(x.dtype).contiguous()
        grad_hidden, weighted, grad_weights = torch.empty_like(hidden), hidden.new_empty(n * k, w), torch.empty_like(weights)
        parts = groups.tile // _BACKWARD_ROWS
        _activated_backward[(groups.most_tiles * parts,)](
            grad, out, weights, hidden, groups.order, groups.starts, groups.tile_ends, grad_hidden, weighted, grad_weights, experts,
            k, d, w, parts, expert_block(experts), _BACKWARD_ROWS, width_block(w, x.dtype, most=64), inner_block(d, x.dtype),
            num_warps=8, maxnreg=128,
        )  # fmt: skip
        grad_out = matrix_gradients(weighted, grad, groups, k, by_token=(False, True))
        grad_gate_up = matrix_gradients(x, grad_hidden, groups, k, by_token=(True, False))
        grad_x = _combined(grouped_product(grad_hidden, gate_up, groups, transposed=True), weights, groups, False, ctx.x_dtype, grad_tokens)
        return grad_x, grad_gate_up, grad_out, grad_weights, None


def takes(experts: int) -> bool:
    """Whether the kernels can work on so many experts."""
    return experts <= _MOST_EXPERTS


def routed_experts(x: Tensor, gate_up: Tensor, out: Tensor, weights: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SwiGLU experts on their tokens.

    Args:
        x: tokens, fp32 or bf16 [N, d].
        gate_up: fp32 [E, d, 2 w].
        out: fp32 [E, w, d].
        weights: gate weights, fp32 [N, k].
        chosen: experts, int64 [N, k].

    Returns the mixture [N, d] in the dtype of products, the load int64 [E], and the tokens, for who else reads them: the gradient that
    comes back to these is added to that of the experts as that is summed.
    """
    y, load, tokens = _Experts.apply(x, gate_up, out, weights, chosen)
    return y, load, tokens
