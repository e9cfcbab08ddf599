"""The memory's short convolution, `SiLU(conv(norm(x))) + x` (paper, 2.3)."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels import gpu
from engram.kernels.gpu.sizing import rows_per_tile, shares

_TILE = 4096
_REGISTERS = 128
"""Of each thread in the backward pass: two programs of 8 warps then fit on a processor."""


@triton.jit(do_not_specialize=["rows", "length", "dilation", "eps"])
def _conv_forward(
    x, norm, taps, y, z, rows, length, dilation, eps,
    branches: tl.constexpr, width: tl.constexpr, kernel: tl.constexpr, block_rows: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    branch = tl.program_id(1)
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    channel = tl.arange(0, block_width)
    here, inside = row < rows, channel < width
    within = branch * width + channel
    at = row[:, None].to(tl.int64) * (branches * width) + within[None, :]
    scale = tl.load(norm + within, mask=inside, other=0.0)
    position = row % length
    total = tl.zeros([block_rows, block_width], dtype=tl.float32)
    past = total
    for tap in range(kernel):  # the last one looks at the row itself; unrolled, the loop would need all rows of all taps in registers
        back = (kernel - 1 - tap) * dilation
        seen = (here & (position >= back))[:, None] & inside[None, :]
        past = tl.load(x + at - back.to(tl.int64) * (branches * width), mask=seen, other=0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(past * past, 1) / width + eps)
        weight = tl.load(taps + within * kernel + tap, mask=inside, other=0.0) * scale
        total += past * factor[:, None] * weight[None, :]
    mask = here[:, None] & inside[None, :]
    tl.store(z + at, total, mask=mask)
    tl.store(y + at, total * tl.sigmoid(total) + past, mask=mask)


@triton.jit(do_not_specialize=["rows", "share", "length", "dilation", "eps"])
def _conv_backward(
    grad, x, norm, taps, z, grad_x, partial, rows, share, length, dilation, eps,
    branches: tl.constexpr, width: tl.constexpr, kernel: tl.constexpr,
    block_rows: tl.constexpr, block_kernel: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    branch = tl.program_id(1)
    number, channel = tl.arange(0, block_kernel), tl.arange(0, block_width)
    inside = channel < width
    within = branch * width + channel
    scale = tl.load(norm + within, mask=inside, other=0.0)
    products = tl.zeros([block_kernel, block_width], dtype=tl.float32)
    start = tl.program_id(0) * share
    for offset in range(0, share, block_rows):
        row = start + offset + tl.arange(0, block_rows)
        mask = (row < rows)[:, None] & inside[None, :]
        at = row[:, None].to(tl.int64) * (branches * width) + within[None, :]
        left = tl.where(row < rows, length - 1 - row % length, -1)  # how many rows of its sequence are ahead
        normed = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(normed * normed, 1) / width + eps)
        normed *= factor[:, None]
        back = tl.zeros([block_rows, block_width], dtype=tl.float32)  # with respect to the normalised row
        direct = back  # past the convolution
        for tap in range(kernel):  # what each brings back to this row, from the row that looked at it; the last one from itself
            ahead = (kernel - 1 - tap) * dilation
            seen = (left >= ahead)[:, None] & inside[None, :]
            source = at + ahead.to(tl.int64) * (branches * width)
            total = tl.load(z + source, mask=seen, other=0.0).to(tl.float32)
            direct = tl.load(grad + source, mask=seen, other=0.0).to(tl.float32)
            sigmoid = tl.sigmoid(total)
            slope = direct * sigmoid * (1 + total * (1 - sigmoid))
            products += tl.where((number == tap)[:, None], tl.sum(slope * normed, 0)[None, :], 0.0)
            weight = tl.load(taps + within * kernel + tap, mask=inside, other=0.0) * scale
            back += slope * weight[None, :]
        result = factor[:, None] * (back - normed * (tl.sum(back * normed, 1) / width)[:, None]) + direct
        tl.store(grad_x + at, result, mask=mask)
    target = partial + tl.program_id(0).to(tl.int64) * ((kernel + 1) * branches * width)
    tap_at = within[None, :] * kernel + number[:, None]
    tap_mask = (number < kernel)[:, None] & inside[None, :]
    weights = tl.load(taps + tap_at, mask=tap_mask, other=0.0)
    tl.store(target + within, tl.sum(products * weights, 0), mask=inside)
    tl.store(target + branches * width + tap_at, products * scale[None, :], mask=tap_mask)


def _sizes(rows: int, branches: int, width: int, kernel: int) -> dict[str, int]:
    block_width = triton.next_power_of_2(width)
    block_rows = rows_per_tile(block_width, rows, _TILE)
    return {
        "branches": branches, "width": width, "kernel": kernel, "block_rows": block_rows, "block_width": block_width,
        "num_warps": 8 if block_rows * block_width > _TILE // 2 else 4,
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
            grad.contiguous(), x, norm, taps, z, grad_x, partial, b * t, share, t, ctx.dilation, ctx.eps,
            block_kernel=triton.next_power_of_2(sizes["kernel"]), maxnreg=_REGISTERS, **sizes,
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
