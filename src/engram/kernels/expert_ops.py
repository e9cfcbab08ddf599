"""The operations of routers and experts that have a compiled kernel: each uses it where it can, and PyTorch's operations elsewhere."""

from typing import Any

import torch
from torch import Tensor

from engram import kernels
from engram.kernels import gpu
from engram.kernels.build import Library
from engram.kernels.ops import as_fp32, linear


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor, k: int, scale: float, library: Library) -> tuple[Tensor, Tensor]:
        scores = logits.detach().clone(memory_format=torch.contiguous_format)
        n, experts = scores.shape
        weights, chosen = scores.new_empty(n, k), torch.empty(n, k, dtype=torch.int64)
        library.call("route_forward", scores, bias, scale, weights, chosen, n, experts, k)
        ctx.save_for_backward(scores, chosen)
        ctx.scale, ctx.library = scale, library
        ctx.mark_non_differentiable(chosen)
        return weights, chosen

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scores, chosen = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        grad_logits = torch.empty_like(scores)
        ctx.library.call("route_backward", grad, scores, chosen, ctx.scale, grad_logits, *scores.shape, chosen.shape[1])
        return grad_logits, None, None, None, None


def route(logits: Tensor, bias: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor]:
    """Sigmoid scores of logits [N, E], top-k by score plus bias [E]: gate weights [N, k] summing to `scale`, experts int64 [N, k]."""
    if gpu.usable(logits) and logits.dtype == bias.dtype == torch.float32 and len(logits):
        from engram.kernels.gpu import routing

        if routing.takes(logits.shape[1]):
            return routing.route(logits, bias, k, scale)
    library = kernels.library(logits)
    if library is not None and logits.dtype == torch.float32 and len(logits):
        weights, chosen = _Route.apply(logits, bias, k, scale, library)
        return weights, chosen
    scores = logits.sigmoid()
    chosen = (scores.detach() + bias).topk(k, dim=-1, sorted=False).indices  # [N, k]
    weights = scores.gather(-1, chosen)
    return scale * weights / (weights.sum(-1, keepdim=True) + 1e-20), chosen


def route_tokens(x: Tensor, weight: Tensor, bias: Tensor, k: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """`route` for the product of tokens [N, d] with a router's weights [E, d], which keeps their precision under autocast too.

    Returns besides the tokens, which are to be used in place of `x` from then on: a GPU adds the gradients of all their uses as it computes
    them.
    """
    if gpu.usable(x) and x.dtype == gpu.product_dtype(x) == torch.bfloat16 and weight.dtype == bias.dtype == torch.float32 and len(x):
        from engram.kernels.gpu import routing

        if routing.takes(len(weight)):
            return routing.route_tokens(x, weight, bias, k, scale)
    with torch.autocast(x.device.type, enabled=False):
        logits = linear(x.to(weight.dtype), weight)  # [N, E]
        return *route(logits, bias, k, scale), x


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate_up: Tensor, out: Tensor, weights: Tensor, chosen: Tensor, library: Library, bf16: bool
    ) -> tuple[Tensor, Tensor]:
        x, gate_up, out, weights = as_fp32(x, gate_up, out, weights)
        (n, k), (experts, w, d) = chosen.shape, out.shape
        y, order, starts = torch.empty_like(x), torch.empty(n * k, dtype=torch.int32), torch.empty(experts + 1, dtype=torch.int64)
        hidden = torch.empty(n * k, 2 * w, dtype=torch.bfloat16 if bf16 else torch.float32) if any(ctx.needs_input_grad) else None
        library.call("experts_forward", x, gate_up, out, weights, chosen.contiguous(), y, order, starts, hidden, n, k, d, w, experts, bf16)
        load = starts.diff()
        if hidden is not None:
            ctx.save_for_backward(x, gate_up, out, weights, order, starts, hidden)
            ctx.library, ctx.bf16 = library, bf16
        ctx.mark_non_differentiable(load)
        return y, load

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, gate_up, out, weights, order, starts, hidden = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        (n, k), (experts, w, d) = weights.shape, out.shape
        grads = [torch.empty_like(one) for one in (x, gate_up, out, weights)]
        ctx.library.call(
            "experts_backward", grad, x, gate_up, out, weights, order, starts, hidden, *grads, n, k, d, w, experts, ctx.bf16
        )  # fmt: skip
        return *grads, None, None, None


def routed_experts(x: Tensor, gate_up: Tensor, out: Tensor, weights: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """SwiGLU experts on their tokens.

    x [N, d], gate_up [E, d, 2 w], out [E, w, d], gate weights [N, k] and experts int64 [N, k] -> mixture [N, d], load int64 [E] and
    the tokens (`route_tokens`); None where there is no kernel.
    """
    if gpu.usable(x) and gate_up.dtype == out.dtype == torch.float32 and len(x):
        from engram.kernels.gpu import experts

        if experts.takes(len(gate_up)):
            return experts.routed_experts(x, gate_up, out, weights, chosen)
    library = kernels.library(x)
    if library is None or gate_up.dtype != torch.float32 or not len(x) or x.shape[1] % 2 or out.shape[1] % 2:
        return None
    y, load = _Experts.apply(x, gate_up, out, weights, chosen, library, kernels.bf16_products())
    return y, load, x
