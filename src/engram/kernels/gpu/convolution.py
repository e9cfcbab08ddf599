"""The memory's short convolution, `SiLU(conv(norm(x))) + x` (paper, 2.3)."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels import gpu
from engram.kernels.gpu.sizing import rows_per_tile, shares


@triton.jit(do_not_specialize=["rows", "length", "dilation", "eps"])
def _conv_forward(
    x, norm, taps, y, z, rows, length, dilation, eps,
    branches: tl.constexpr, width: tl.constexpr, kernel: tl.constexpr,
    block_rows: tl.constexpr, block_kernel: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    branch = tl.program_id(1)
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    tap, channel = tl.arange(0, block_kernel), tl.arange(0, block_width)
    within = branch * width + channel
    tap_mask = (tap[:, None] < kernel) & (channel[None, :] < width)
    weights = tl.load(taps + within[None, :] * kernel + tap[:, None], mask=tap_mask, other=0.0)
    weights *= tl.load(norm + within, mask=channel < width, other=0.0)[None, :]  # [kernel, d]
    back = (kernel - 1 - tap) * dilation
    seen = (row[:, None] < rows) & (row[:, None] % length >= back[None, :])  # [rows, kernel]
    source = (row[:, None] - back[None, :]).to(tl.int64) * (branches * width)
    past = tl.load(x + source[:, :, None] + within[None, None, :], mask=seen[:, :, None] & tap_mask[None, :, :], other=0.0)
    past = past.to(tl.float32)  # [rows, kernel, d]
    factor = tl.rsqrt(tl.sum(past * past, axis=2) / width + eps)
    total = tl.sum(past * factor[:, :, None] * weights[None, :, :], axis=1)  # [rows, d]
    mask = (row[:, None] < rows) & (channel[None, :] < width)
    at = row[:, None].to(tl.int64) * (branches * width) + within[None, :]
    here = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(z + at, total, mask=mask)
    tl.store(y + at, total * tl.sigmoid(total) + here, mask=mask)


@triton.jit(do_not_specialize=["rows", "share", "length", "dilation", "eps"])
def _conv_backward(
    grad, x, norm, taps, z, grad_x, partial, rows, share, length, dilation, eps,
    branches: tl.constexpr, width: tl.constexpr, kernel: tl.constexpr,
    block_rows: tl.constexpr, block_kernel: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    branch = tl.program_id(1)
    tap, channel = tl.arange(0, block_kernel), tl.arange(0, block_width)
    within = branch * width + channel
    tap_mask = (tap[:, None] < kernel) & (channel[None, :] < width)
    weights = tl.load(taps + within[None, :] * kernel + tap[:, None], mask=tap_mask, other=0.0)  # [kernel, d]
    scale = tl.load(norm + within, mask=channel < width, other=0.0)
    ahead = (kernel - 1 - tap) * dilation
    products = tl.zeros((block_kernel, block_width), dtype=tl.float32)
    start = tl.program_id(0) * share
    for offset in range(0, share, block_rows):
        row = start + offset + tl.arange(0, block_rows)
        mask = (row[:, None] < rows) & (channel[None, :] < width)
        at = row[:, None].to(tl.int64) * (branches * width) + within[None, :]
        # What each tap brings back to this row, from the rows that looked back at it.
        seen = (row[:, None] < rows) & (row[:, None] % length + ahead[None, :] < length)  # [rows, kernel]
        source = (row[:, None] + ahead[None, :]).to(tl.int64)[:, :, None] * (branches * width) + within[None, None, :]
        from_mask = seen[:, :, None] & tap_mask[None, :, :]
        later = tl.load(z + source, mask=from_mask, other=0.0).to(tl.float32)  # [rows, kernel, d]
        sigmoid = tl.sigmoid(later)
        later = tl.load(grad + source, mask=from_mask, other=0.0).to(tl.float32) * sigmoid * (1 + later * (1 - sigmoid))
        here = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(here * here, axis=1) / width + eps)[:, None]
        here *= factor
        products += tl.sum(later * here[:, None, :], axis=0)
        back = tl.sum(later * weights[None, :, :], axis=1) * scale[None, :]  # [rows, d], with respect to the normalised row
        back = factor * (back - here * (tl.sum(back * here, axis=1) / width)[:, None])
        back += tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_x + at, back, mask=mask)
    target = partial + tl.program_id(0).to(tl.int64) * ((kernel + 1) * branches * width)
    tl.store(target + within, tl.sum(products * weights, axis=0), mask=channel < width)
    tap_at = branches * width + within[None, :] * kernel + tap[:, None]
    tl.store(target + tap_at, products * scale[None, :], mask=tap_mask)


def _sizes(rows: int, branches: int, width: int, kernel: int) -> dict[str, int]:
    block_kernel, block_width = triton.next_power_of_2(kernel), triton.next_power_of_2(width)
    return {
        "branches": branches, "width": width, "kernel": kernel, "block_rows": rows_per_tile(block_kernel * block_width, rows, 4096),
        "block_kernel": block_kernel, "block_width": block_width, "num_warps": 4 if block_width <= 512 else 8,
    }  # fmt: skip


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, taps: Tensor, eps: float, dilation: int, dtype: torch.dtype) -> Tensor:
        x, norm, taps = x.contiguous(), norm.contiguous(), taps.contiguous()
        b, t, branches, d = x.shape
        y = torch.empty_like(x, dtype=torch.float32)
        z = torch.empty_like(x, dtype=dtype)
        sizes = _sizes(b * t, branches, d, taps.shape[-1])
        grid = (triton.cdiv(b * t, sizes["block_rows"]), branches)
        _conv_forward[grid](x, norm, taps, y, z, b * t, t, dilation, eps, **sizes)
        ctx.save_for_backward(x, norm, taps, z)
        ctx.eps, ctx.dilation = eps, dilation
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, taps, z = ctx.saved_tensors
        b, t, branches, d = x.shape
        sizes = _sizes(b * t, branches, d, taps.shape[-1])
        programs, share = shares(b * t, sizes["block_rows"], branches)
        grad_x = torch.empty_like(x)
        partial = torch.empty(programs, norm.numel() + taps.numel(), dtype=torch.float32, device=x.device)
        _conv_backward[(programs, branches)](
            grad.contiguous(), x, norm, taps, z, grad_x, partial, b * t, share, t, ctx.dilation, ctx.eps, **sizes
        )  # fmt: skip
        grad_norm, grad_taps = partial.sum(0).split([norm.numel(), taps.numel()])
        return grad_x, grad_norm.view_as(norm), grad_taps.view_as(taps), None, None, None


def convolved(x: Tensor, norm: Tensor, taps: Tensor, dilation: int, eps: float) -> Tensor:
    """`SiLU(conv(norm(x))) + x` for whole sequences, one read of the input and two writes in the forward pass.

    Args:
        x: fp32 or bf16 [B, T, M, d].
        norm: weights of the norm, fp32 [M, d].
        taps: fp32 [M, d, kernel]; tap k looks back (kernel - 1 - k) * dilation tokens.
        dilation: distance of the taps.
        eps: of the norm.

    Returns fp32 [B, T, M, d]: it is added to a residual stream in fp32, whose gradient then needs no conversion.
    """
    y: Tensor = _Conv.apply(x, norm, taps, eps, dilation, gpu.product_dtype(x))
    return y
