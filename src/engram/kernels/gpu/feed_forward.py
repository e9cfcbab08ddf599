"""A SwiGLU feed-forward layer with its gradients.

The width of a shared expert is whatever makes the parameters add up. Where rows of that width don't begin at multiples of 16 bytes, matrix
products would fall to kernels several times slower: there the copies of the weights that are multiplied are padded with zeros, and with
them everything in between.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels import gpu
from engram.kernels.gpu.casts import product_copy
from engram.kernels.gpu.products import wide_product
from engram.kernels.gpu.swiglu import activated, activated_backward

_ALIGNED = 8
_BLOCK = 1024


@triton.jit(do_not_specialize=["rows", "columns", "wide_rows", "wide_columns", "numbers"])
def _pad(source, result, rows, columns, wide_rows, wide_columns, numbers, block: tl.constexpr):
    """Matrices [p, rows, columns] to [p, wide_rows, wide_columns], zeros around."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    column, line = at % wide_columns, at // wide_columns
    row, matrix = line % wide_rows, line // wide_rows
    inside = (at < numbers) & (row < rows) & (column < columns)
    values = tl.load(source + (matrix * rows + row) * columns + column, mask=inside, other=0.0)
    tl.store(result + at, values.to(result.dtype.element_ty), mask=at < numbers)


def padded(matrices: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """[p, r, c] -> [p, rows, columns] in `dtype`, with zeros after the numbers of each matrix."""
    result = torch.empty(len(matrices), rows, columns, dtype=dtype, device=matrices.device)
    _pad[(triton.cdiv(result.numel(), _BLOCK),)](
        matrices.detach().contiguous(), result, *matrices.shape[1:], rows, columns, result.numel(), _BLOCK
    )  # fmt: skip
    return result


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, out: Tensor, added: Tensor | None) -> Tensor:
        dtype = gpu.product_dtype(x)
        d, w = out.shape
        wide = triton.cdiv(w, _ALIGNED) * _ALIGNED
        if wide == w or dtype == torch.float32:
            wide, first, second = w, product_copy(gate_up, dtype), product_copy(out, dtype)
        else:
            first = padded(gate_up.view(2, w, -1), wide, gate_up.shape[1], dtype).flatten(0, 1)  # [2 wide, d]
            second = padded(out.unsqueeze(0), d, wide, dtype)[0]  # [d, wide]
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            hidden = rows @ first.t()  # [N, 2 wide]
            active = activated(hidden)  # [N, wide]
            if added is None:
                y = (active @ second.t()).view(*x.shape[:-1], d)
            else:
                y = added
                y.view(-1, d).addmm_(active, second.t())
                ctx.mark_dirty(added)
        ctx.save_for_backward(rows, first, second, hidden, active)
        ctx.x_dtype, ctx.width = x.dtype, w
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, first, second, hidden, active = ctx.saved_tensors
        (d, wide), w = second.shape, ctx.width
        slope = grad.reshape(-1, d).to(rows.dtype)
        with torch.autocast(grad.device.type, enabled=False):
            grad_out = wide_product(slope.t(), active)  # [d, wide]
            grad_hidden = activated_backward(slope @ second, hidden)
            grad_gate_up = wide_product(grad_hidden.t(), rows)  # [2 wide, d]
            grad_x = (grad_hidden @ first).to(ctx.x_dtype).view(*grad.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        if wide != w:
            grad_out = grad_out[:, :w].contiguous()
            grad_gate_up = grad_gate_up.unflatten(0, (2, wide))[:, :w].reshape(2 * w, -1)
        return grad_x, grad_gate_up, grad_out, grad if ctx.needs_input_grad[3] else None


def feed_forward(x: Tensor, gate_up: Tensor, out: Tensor, added: Tensor | None) -> Tensor:
    """`out(silu(gate x) * (up x))` in the dtype of products: fp32 or bf16 [..., d], fp32 [2 w, d], fp32 [d, w] -> [..., d].

    What is to be `added` to it, [..., d] in the dtype of products, contiguous, is overwritten.
    """
    y: Tensor = _FeedForward.apply(x, gate_up, out, added)
    return y
