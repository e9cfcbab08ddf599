"""Products with a weight, and their gradients; that of the weight comes in fp32 straight from its product."""

from typing import Any

import torch
from torch import Tensor

from engram.kernels import gpu
from engram.kernels.gpu.casts import product_copy
from engram.kernels.gpu.products import wide_product


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = gpu.product_dtype(x)
        rows, matrix = x.reshape(-1, x.shape[-1]).to(dtype), product_copy(weight, dtype)
        with torch.autocast(x.device.type, enabled=False):
            y = rows @ matrix.t() if bias is None else torch.addmm(bias.to(dtype), rows, matrix.t())  # [N, out]
        ctx.save_for_backward(rows, matrix)
        ctx.x_dtype = x.dtype
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, matrix = ctx.saved_tensors
        slope = grad.reshape(-1, len(matrix)).to(rows.dtype)  # [N, out]
        of_x, of_weight, of_bias = ctx.needs_input_grad
        with torch.autocast(grad.device.type, enabled=False):
            grad_x = (slope @ matrix).to(ctx.x_dtype).view(*grad.shape[:-1], -1) if of_x else None
            grad_weight = wide_product(slope.t(), rows) if of_weight else None
            grad_bias = slope.sum(0, dtype=torch.float32) if of_bias else None
        return grad_x, grad_weight, grad_bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x W^T + b` in the dtype of products: fp32 or bf16 [..., in], fp32 [out, in], fp32 [out] or None -> [..., out]."""
    y: Tensor = _Linear.apply(x, weight, bias)
    return y
