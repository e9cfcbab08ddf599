"""RMSNorm with its gradients: one kernel each way."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu.rows import PROGRAMS, row_blocks, rows_of


@triton.jit(do_not_specialize=["rows"])
def _norm_forward(x, weight, y, rows, x_stride, eps, d: tl.constexpr, block_d: tl.constexpr, block_rows: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    column = tl.arange(0, block_d)
    mask = (row < rows)[:, None] & (column < d)[None, :]
    values = tl.load(x + row[:, None] * x_stride + column[None, :], mask=mask, other=0.0).to(tl.float32)
    scale = tl.load(weight + column, mask=column < d, other=0.0)
    rstd = tl.rsqrt(tl.sum(values * values, 1) / d + eps)
    result = values * rstd[:, None] * scale[None, :]
    tl.store(y + row[:, None] * d + column[None, :], result.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "tiles"])
def _norm_backward(
    grad, x, weight, grad_x, parts, rows, tiles, grad_stride, x_stride, eps,
    d: tl.constexpr, block_d: tl.constexpr, block_rows: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, block_d)
    scale = tl.load(weight + column, mask=column < d, other=0.0)
    grad_scale = tl.zeros([block_rows, block_d], dtype=tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = (tile * block_rows + tl.arange(0, block_rows)).to(tl.int64)
        mask = (row < rows)[:, None] & (column < d)[None, :]
        values = tl.load(x + row[:, None] * x_stride + column[None, :], mask=mask, other=0.0).to(tl.float32)
        slope = tl.load(grad + row[:, None] * grad_stride + column[None, :], mask=mask, other=0.0).to(tl.float32)
        rstd = tl.rsqrt(tl.sum(values * values, 1) / d + eps)
        normed = values * rstd[:, None]
        grad_scale += slope * normed
        slope *= scale[None, :]
        along = tl.sum(slope * normed, 1) / d
        result = rstd[:, None] * (slope - normed * along[:, None])
        tl.store(grad_x + row[:, None] * d + column[None, :], result.to(grad_x.dtype.element_ty), mask=mask)
    tl.store(parts + tl.program_id(0) * d + column, tl.sum(grad_scale, 0), mask=column < d)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        rows, weight = rows_of(x), weight.contiguous()
        (n, d), y = rows.shape, x.new_empty(x.shape, dtype=dtype)
        block_d, block_rows = row_blocks(d)
        _norm_forward[(triton.cdiv(n, block_rows),)](rows, weight, y, n, rows.stride(0), eps, d, block_d, block_rows)
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        rows, grads = rows_of(x), rows_of(grad)
        n, d = rows.shape
        block_d, block_rows = row_blocks(d)
        tiles = triton.cdiv(n, block_rows)
        programs = min(tiles, PROGRAMS)
        grad_x, parts = torch.empty(x.shape, dtype=x.dtype, device=x.device), weight.new_empty(programs, d)
        _norm_backward[(programs,)](
            grads, rows, weight, grad_x, parts, n, tiles, grads.stride(0), rows.stride(0), ctx.eps, d, block_d, block_rows
        )  # fmt: skip
        return grad_x, parts.sum(0), None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension: [..., d] fp32 or bf16, [d] fp32 -> [..., d] in `dtype`."""
    y: Tensor = _RmsNorm.apply(x, weight, eps, dtype)
    return y
