"""The memory's operations that have a compiled kernel. They return None where it can't be used; the caller then uses PyTorch's."""

from typing import Any

import torch
from torch import Tensor

from engram import kernels
from engram.kernels import gpu
from engram.kernels.build import Library
from engram.kernels.ops import as_fp32

_ANY = torch.empty(0)


class _Expand(torch.autograd.Function):
    """`rows[places]`, whose backward pass sums by place."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, library: Library) -> Tensor:
        out = rows.new_empty(*places.shape, rows.shape[1])
        library.call("gather", rows, places, out, places.numel(), rows.shape[1])
        ctx.save_for_backward(places)
        ctx.count, ctx.library = len(rows), library
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        out = grad.new_empty(ctx.count, grad.shape[-1])
        ctx.library.call("scatter_add", grad, places, out, places.numel(), ctx.count, grad.shape[-1])
        return out, None, None


def distinct(rows: Tensor) -> tuple[Tensor, Tensor] | None:
    """Ids int64 [...] -> distinct ids in ascending order int64 [U], and the place of each id among them, int64 [...]."""
    library = kernels.library(_ANY) if rows.device.type == "cpu" else None
    if library is None or not rows.numel():
        return None
    rows = rows.contiguous()
    found, places = torch.empty(rows.numel(), dtype=torch.int64), torch.empty_like(rows)
    return found[: library.count("distinct", rows, found, places, rows.numel())], places


def gather(table: Tensor, ids: Tensor) -> Tensor | None:
    """Copies of the rows `ids` int64 [U] of a table fp32 [n, r]: [U, r]."""
    library = kernels.library(table)
    if library is None or table.dtype != torch.float32:
        return None
    out = table.new_empty(len(ids), table.shape[1])
    library.call("gather", table.detach(), ids, out, *out.shape)
    return out


def expand(rows: Tensor, places: Tensor) -> Tensor | None:
    """`rows[places]`: fp32 [U, r], int64 [...] -> [..., r]; its backward pass sums by place."""
    library = kernels.library(rows)
    if library is None or rows.dtype != torch.float32:
        return None
    out: Tensor = _Expand.apply(rows, places.contiguous(), library)
    return out


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        keys: Tensor,
        values: Tensor,
        query_norm: Tensor,
        key_norm: Tensor,
        eps: float,
        sqrt: bool,
        library: Library,
    ) -> Tensor:
        inputs = as_fp32(hidden, keys, values, query_norm, key_norm)
        *_, branches, d = hidden.shape
        n = values.numel() // d
        update, alpha = torch.empty_like(inputs[0]), torch.empty(n * branches)
        library.call("gate_forward", *inputs, eps, sqrt, update, alpha, n, branches, d)
        ctx.save_for_backward(*inputs, alpha)
        ctx.eps, ctx.sqrt, ctx.library = eps, sqrt, library
        return update

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, alpha = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        grads = [torch.empty_like(one) for one in inputs]
        *_, branches, d = grad.shape
        ctx.library.call("gate_backward", grad, *inputs, ctx.eps, ctx.sqrt, alpha, *grads, grad.numel() // (branches * d), branches, d)
        return *grads, None, None, None


def gated(hidden: Tensor, keys: Tensor, values: Tensor, query_norm: Tensor, key_norm: Tensor, eps: float, sqrt: bool) -> Tensor | None:
    """Values [B, T, d] times the gate of hidden states and keys [B, T, M, d] (norm weights [M, d]) -> [B, T, M, d]."""
    if gpu.usable(hidden) and query_norm.dtype == torch.float32 and hidden.numel():
        from engram.kernels.gpu import gate

        return gate.gated(hidden, keys, values, query_norm, key_norm, eps, sqrt)
    library = kernels.library(hidden)
    if library is None or query_norm.dtype != torch.float32:
        return None
    update: Tensor = _Gate.apply(hidden, keys, values, query_norm, key_norm, eps, sqrt, library)
    return update


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, taps: Tensor, eps: float, dilation: int, library: Library) -> Tensor:
        x, norm, by_tap = as_fp32(x, norm, taps.movedim(-1, 0))  # taps [kernel, M, d]
        y, z = torch.empty_like(x), torch.empty_like(x)
        library.call("conv_forward", x, norm, by_tap, eps, y, z, *x.shape, len(by_tap), dilation)
        ctx.save_for_backward(x, norm, by_tap, z)
        ctx.eps, ctx.dilation, ctx.library = eps, dilation, library
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, by_tap, z = ctx.saved_tensors
        (grad,) = as_fp32(grad)
        grads = [torch.empty_like(one) for one in (x, norm, by_tap)]
        ctx.library.call("conv_backward", grad, x, norm, by_tap, ctx.eps, z, *grads, *x.shape, len(by_tap), ctx.dilation)
        return grads[0], grads[1], grads[2].movedim(0, -1), None, None, None


def convolved(x: Tensor, norm: Tensor, taps: Tensor, dilation: int, eps: float) -> Tensor | None:
    """`SiLU(conv(norm(x))) + x` for whole sequences: x [B, T, M, d], norm [M, d], taps [M, d, kernel] -> [B, T, M, d]."""
    if gpu.usable(x) and norm.dtype == torch.float32 and x.numel():
        from engram.kernels.gpu import convolution

        return convolution.convolved(x, norm, taps, dilation, eps)
    library = kernels.library(x)
    if library is None or norm.dtype != torch.float32:
        return None
    y: Tensor = _Conv.apply(x, norm, taps, eps, dilation, library)
    return y
