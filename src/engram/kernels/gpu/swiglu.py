"""The activation `silu(gate) * up` with its gradient: one kernel each way."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu.rows import row_blocks


@triton.jit
def activation(gate, up):
    """`silu(gate) * up` in fp32."""
    return gate * tl.sigmoid(gate) * up


@triton.jit
def activation_gradients(gate, up, slope):
    """Gradients of gate and up, given that of `silu(gate) * up`; all fp32."""
    share = tl.sigmoid(gate)
    silu = gate * share
    return slope * up * (share + silu * (1 - share)), slope * silu


@triton.jit(do_not_specialize=["rows"])
def _swiglu_forward(gate_up, out, rows, w: tl.constexpr, block_w: tl.constexpr, block_rows: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    column = tl.arange(0, block_w)
    mask = (row < rows)[:, None] & (column < w)[None, :]
    at = gate_up + row[:, None] * (2 * w) + column[None, :]
    gate, up = tl.load(at, mask=mask, other=0.0).to(tl.float32), tl.load(at + w, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row[:, None] * w + column[None, :], activation(gate, up).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def _swiglu_backward(grad, gate_up, grad_gate_up, rows, w: tl.constexpr, block_w: tl.constexpr, block_rows: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    column = tl.arange(0, block_w)
    mask = (row < rows)[:, None] & (column < w)[None, :]
    offset = row[:, None] * (2 * w) + column[None, :]
    gate = tl.load(gate_up + offset, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + offset + w, mask=mask, other=0.0).to(tl.float32)
    slope = tl.load(grad + row[:, None] * w + column[None, :], mask=mask, other=0.0).to(tl.float32)
    grad_gate, grad_up = activation_gradients(gate, up, slope)
    tl.store(grad_gate_up + offset, grad_gate.to(grad_gate_up.dtype.element_ty), mask=mask)
    tl.store(grad_gate_up + offset + w, grad_up.to(grad_gate_up.dtype.element_ty), mask=mask)


def activated(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` without a gradient: [..., 2 w], contiguous -> [..., w]."""
    w = gate_up.shape[-1] // 2
    out = gate_up.new_empty(*gate_up.shape[:-1], w)
    block_w, block_rows = row_blocks(w)
    n = out.numel() // w
    _swiglu_forward[(triton.cdiv(n, block_rows),)](gate_up, out, n, w, block_w, block_rows)
    return out


def activated_backward(grad: Tensor, gate_up: Tensor) -> Tensor:
    """The gradient of gate and up [..., 2 w], given that of `activated` [..., w]."""
    grad_gate_up, w = torch.empty_like(gate_up), gate_up.shape[-1] // 2
    block_w, block_rows = row_blocks(w)
    n = grad.numel() // w
    _swiglu_backward[(triton.cdiv(n, block_rows),)](grad.contiguous(), gate_up, grad_gate_up, n, w, block_w, block_rows)
    return grad_gate_up


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        return activated(gate_up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return activated_backward(grad, *ctx.saved_tensors)


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of [..., 2 w], gate first -> [..., w] in the same dtype."""
    out: Tensor = _SwiGlu.apply(gate_up)
    return out
