"""A sublayer's output, added to the residual stream where the next RMSNorm reads it: one kernel each way."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu.rows import PROGRAMS, row_blocks


@triton.jit(do_not_specialize=["rows"])
def _add_norm_forward(
    hidden, pending, weight, total, y, rows, eps, d: tl.constexpr, block_d: tl.constexpr, block_rows: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    column = tl.arange(0, block_d)
    mask = (row < rows)[:, None] & (column < d)[None, :]
    at = row[:, None] * d + column[None, :]
    values = tl.load(hidden + at, mask=mask, other=0.0) + tl.load(pending + at, mask=mask, other=0.0).to(tl.float32)
    scale = tl.load(weight + column, mask=column < d, other=0.0)
    rstd = tl.rsqrt(tl.sum(values * values, 1) / d + eps)
    tl.store(total + at, values, mask=mask)
    tl.store(y + at, (values * rstd[:, None] * scale[None, :]).to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "tiles"])
def _add_norm_backward(
    grad_total, grad_y, total, weight, grad_hidden, grad_pending, parts, rows, tiles, eps,
    carried: tl.constexpr, copied: tl.constexpr, d: tl.constexpr, block_d: tl.constexpr, block_rows: tl.constexpr,
):  # fmt: skip
    """`carried`: whether the stream goes on after the norm; `copied`: whether the sublayer wants its gradient in a dtype of its own."""
    column = tl.arange(0, block_d)
    scale = tl.load(weight + column, mask=column < d, other=0.0)
    grad_scale = tl.zeros([block_rows, block_d], dtype=tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = (tile * block_rows + tl.arange(0, block_rows)).to(tl.int64)
        mask = (row < rows)[:, None] & (column < d)[None, :]
        at = row[:, None] * d + column[None, :]
        values = tl.load(total + at, mask=mask, other=0.0)
        slope = tl.load(grad_y + at, mask=mask, other=0.0).to(tl.float32)
        rstd = tl.rsqrt(tl.sum(values * values, 1) / d + eps)
        normed = values * rstd[:, None]
        grad_scale += slope * normed
        slope *= scale[None, :]
        along = tl.sum(slope * normed, 1) / d
        result = rstd[:, None] * (slope - normed * along[:, None])
        if carried:
            result += tl.load(grad_total + at, mask=mask, other=0.0)
        tl.store(grad_hidden + at, result, mask=mask)
        if copied:
            tl.store(grad_pending + at, result.to(grad_pending.dtype.element_ty), mask=mask)
    tl.store(parts + tl.program_id(0) * d + column, tl.sum(grad_scale, 0), mask=column < d)


class _AddRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, pending: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        hidden, pending, weight = hidden.contiguous(), pending.contiguous(), weight.contiguous()
        d = hidden.shape[-1]
        total, y = torch.empty_like(hidden), torch.empty_like(hidden, dtype=dtype)
        block_d, block_rows = row_blocks(d)
        n = hidden.numel() // d
        _add_norm_forward[(triton.cdiv(n, block_rows),)](hidden, pending, weight, total, y, n, eps, d, block_d, block_rows)
        ctx.save_for_backward(total, weight)
        ctx.set_materialize_grads(False)  # the stream ends at the model's last norm
        ctx.eps, ctx.dtype = eps, pending.dtype
        return total, y

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor | None, grad_y: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight = ctx.saved_tensors
        if grad_y is None:
            return grad_total, None if grad_total is None else grad_total.to(ctx.dtype), None, None, None
        grad_y = grad_y.contiguous()
        carried = grad_y if grad_total is None else grad_total.contiguous()
        grad_hidden = torch.empty_like(total)
        grad_pending = grad_hidden if ctx.dtype == torch.float32 else torch.empty_like(total, dtype=ctx.dtype)
        d = total.shape[-1]
        n, (block_d, block_rows) = total.numel() // d, row_blocks(d)
        tiles = triton.cdiv(n, block_rows)
        programs = min(tiles, PROGRAMS)
        parts = weight.new_empty(programs, d)
        _add_norm_backward[(programs,)](
            carried, grad_y, total, weight, grad_hidden, grad_pending, parts, n, tiles, ctx.eps,
            grad_total is not None, grad_pending is not grad_hidden, d, block_d, block_rows,
        )  # fmt: skip
        return grad_hidden, grad_pending, parts.sum(0), None, None


def add_rms_norm(hidden: Tensor, pending: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The sum of `hidden` fp32 and `pending` fp32 or bf16, both [..., d], in fp32, and its RMSNorm with `weight` fp32 [d], in `dtype`.

    In the backward pass the stream's gradient is added to that of the norm, and a copy is written in the dtype of `pending`.
    """
    total, y = _AddRmsNorm.apply(hidden, pending, weight, eps, dtype)
    return total, y
