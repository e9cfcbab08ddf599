"""The model's operations that have a compiled kernel: each uses it where it can, and PyTorch's operations elsewhere."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engram import kernels
from engram.kernels import gpu
from engram.kernels.build import Library


def as_fp32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as kernels read them: fp32, contiguous, detached."""
    return tuple(x.detach().float().contiguous() for x in tensors)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, library: Library, bf16: bool) -> Tensor:
        x, weight = as_fp32(x, weight)
        y = x.new_empty(*x.shape[:-1], len(weight))
        library.call("linear_forward", x, weight, y, x.numel() // x.shape[-1], x.shape[-1], len(weight), bf16)
        ctx.save_for_backward(x, weight)
        ctx.library, ctx.bf16 = library, bf16
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight = torch.empty_like(weight)
        n = x.numel() // x.shape[-1]
        ctx.library.call("linear_backward", grad, x, weight, grad_x, grad_weight, n, x.shape[-1], len(weight), ctx.bf16)
        return grad_x, grad_weight, None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + b`: [..., in], [out, in] -> [..., out]."""
    if gpu.usable(x) and weight.dtype == torch.float32 and x.numel():
        from engram.kernels.gpu import linear as kernel

        return kernel.linear(x, weight, bias)
    library = kernels.library(x)
    if library is None or weight.dtype != torch.float32 or x.numel() == 0 or x.shape[-1] % 2:
        return F.linear(x, weight, bias)
    y: Tensor = _Linear.apply(x, weight, library, kernels.bf16_products())
    return y if bias is None else y + bias


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, library: Library) -> Tensor:
        x, weight = as_fp32(x, weight)
        y = torch.empty_like(x)
        library.call("rms_norm_forward", x, weight, eps, y, x.numel() // x.shape[-1], x.shape[-1])
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.library = eps, library
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        ctx.library.call("rms_norm_backward", grad, x, weight, ctx.eps, grad_x, grad_weight, x.numel() // x.shape[-1], x.shape[-1])
        return grad_x, grad_weight, None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float, multiplied: bool = False) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension: [..., d], [d] -> [..., d] in the dtype of the weight.

    What is only `multiplied` with matrices next comes in the dtype of the products where a GPU has a kernel: they would convert it.
    """
    if gpu.usable(x) and weight.dtype == torch.float32 and x.numel():
        from engram.kernels.gpu import norm

        return norm.rms_norm(x, weight, eps, gpu.product_dtype(x) if multiplied else torch.float32)
    library = kernels.library(x)
    if library is None or weight.dtype != torch.float32:
        return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps)
    y: Tensor = _RmsNorm.apply(x, weight, eps, library)
    return y


def add_rms_norm(hidden: Tensor, pending: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`hidden + pending`, both [..., d], and its `rms_norm` with `weight` [d], which is only multiplied with matrices next."""
    if gpu.usable(hidden) and gpu.usable(pending) and hidden.dtype == weight.dtype == torch.float32 and hidden.numel():
        from engram.kernels.gpu import add_norm

        return add_norm.add_rms_norm(hidden, pending, weight, eps, gpu.product_dtype(hidden))
    total = hidden + pending
    return total, rms_norm(total, weight, eps, multiplied=True)


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, library: Library) -> Tensor:
        (gate_up,) = as_fp32(gate_up)
        width = gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], width)
        library.call("swiglu_forward", gate_up, out, out.numel() // width, width)
        ctx.save_for_backward(gate_up)
        ctx.library = library
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gate_up,) = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        grad_gate_up = torch.empty_like(gate_up)
        ctx.library.call("swiglu_backward", grad, gate_up, grad_gate_up, grad.numel() // grad.shape[-1], grad.shape[-1])
        return grad_gate_up, None


def swiglu(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of [..., 2 w], gate first -> [..., w]."""
    if gpu.usable(gate_up) and gate_up.numel():
        from engram.kernels.gpu import swiglu as kernel

        return kernel.swiglu(gate_up)
    library = kernels.library(gate_up)
    if library is None or not gate_up.numel():
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    out: Tensor = _SwiGlu.apply(gate_up, library)
    return out


def feed_forward(x: Tensor, gate_up: Tensor, out: Tensor, added: Tensor | None = None) -> Tensor:
    """`out(silu(gate x) * (up x))`: [..., d], gate and up [2 w, d], out [d, w] -> [..., d].

    What is `added` to it, [..., d], may be overwritten.
    """
    takes = added is None or (added.dtype == gpu.product_dtype(x) and added.is_contiguous())
    if gpu.usable(x) and gate_up.dtype == out.dtype == torch.float32 and x.numel() and takes:
        from engram.kernels.gpu import feed_forward as kernel

        return kernel.feed_forward(x, gate_up, out, added)
    y = linear(swiglu(linear(x, gate_up)), out)
    return y if added is None else added + y


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, scale: float, shift: bool, library: Library, bf16: bool) -> Tensor:
        qkv, cos, sin = as_fp32(qkv, cos, sin)
        b, t, _, h, c = qkv.shape
        mixed, log_sums = qkv.new_empty(b, t, h, c), qkv.new_empty(b, h, t)
        library.call("attention_forward", qkv, cos, sin, scale, mixed, log_sums, b, t, h, c, shift, bf16)
        ctx.save_for_backward(qkv, cos, sin, mixed, log_sums)
        ctx.scale, ctx.shift, ctx.library, ctx.bf16 = scale, shift, library, bf16
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, cos, sin, mixed, log_sums = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        b, t, _, h, c = qkv.shape
        grad_qkv = torch.empty_like(qkv)
        ctx.library.call(
            "attention_backward", grad, qkv, cos, sin, ctx.scale, mixed, log_sums, grad_qkv, b, t, h, c, ctx.shift, ctx.bf16
        )  # fmt: skip
        return grad_qkv, None, None, None, None, None, None


def causal_attention(qkv: Tensor, cos: Tensor, sin: Tensor, scale: float, shift: bool, otherwise: Callable[[], Tensor]) -> Tensor:
    """Causal attention with rotary positions on fused projections.

    Args:
        qkv: queries, keys and values, [B, T, 3, h, c].
        cos: [T, c / 2].
        sin: [T, c / 2].
        scale: factor on the scores.
        shift: whether half of the key channels come from the previous position.
        otherwise: computes the same where there is no kernel.

    Returns [B, T, h c].
    """
    if gpu.usable(qkv):
        from engram.kernels.gpu import attention

        if attention.fits(qkv, cos):
            return attention.causal_attention(qkv, cos, sin, scale, shift).flatten(-2)
    library = kernels.library(qkv)
    if library is None or cos.ndim != 2 or qkv.numel() == 0:
        return otherwise()
    mixed: Tensor = _Attention.apply(qkv, cos, sin, scale, shift, library, kernels.bf16_products())
    return mixed.flatten(-2)


def head_losses(hidden: Tensor, weight: Tensor, targets: Tensor, gradients: bool) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
    """Cross-entropy of the head.

    hidden [N, d], weight [V, d], targets int64 [N] -> losses [N] in nats and, if wanted, the gradients of their sum with respect to hidden
    states and weight; None where there is no kernel.
    """
    if gpu.usable(hidden) and weight.dtype == torch.float32 and len(hidden):
        from engram.kernels.gpu.head import losses_and_gradients

        return losses_and_gradients(hidden, weight, targets, gradients)
    library = kernels.library(hidden)
    if library is None or weight.dtype != torch.float32 or not len(hidden) or hidden.shape[1] % 2:
        return None
    hidden, weight = as_fp32(hidden, weight)
    losses = hidden.new_empty(len(hidden))
    grads = (torch.empty_like(hidden), torch.empty_like(weight)) if gradients else (None, None)
    (n, d), v = hidden.shape, len(weight)
    library.call("head_loss", hidden, weight, targets.contiguous(), losses, *grads, n, d, v, kernels.bf16_products())
    return losses, *grads


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    """Token ids int64 [...], weight [V, d] -> the vectors of the tokens [..., d]."""
    if gpu.usable(weight):
        from engram.kernels.gpu.embedding import embedding

        return embedding(tokens, weight)
    return F.embedding(tokens, weight)
