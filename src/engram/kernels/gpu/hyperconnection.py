"""Hyper-connections: Sinkhorn-Knopp iterations on a matrix per token, and reading and writing several residual branches."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu.sizing import rows_per_tile


@triton.jit(do_not_specialize=["count", "pairs", "eps"])
def _sinkhorn_forward(logits, matrices, sums, count, pairs, eps, size: tl.constexpr, block_size: tl.constexpr, block: tl.constexpr):
    i, j = tl.arange(0, block_size)[:, None, None], tl.arange(0, block_size)[None, :, None]
    n = tl.program_id(0) * block + tl.arange(0, block)[None, None, :]
    mask = (i < size) & (j < size) & (n < count)
    at = (i * size + j).to(tl.int64) * count + n
    matrix = tl.load(logits + at, mask=mask, other=float("-inf"))
    highest = tl.max(matrix, axis=1, keep_dims=True)
    matrix = tl.where(mask, tl.exp(matrix - tl.where(highest > float("-inf"), highest, 0.0)), 0.0)
    total = tl.sum(matrix, axis=1, keep_dims=True)
    matrix = tl.where(mask, matrix / tl.where(total > 0, total, 1.0) + eps, 0.0)
    column_at, column_mask = j.to(tl.int64) * count + n, (j < size) & (n < count)
    row_at, row_mask = i.to(tl.int64) * count + n, (i < size) & (n < count)
    target = sums
    for _ in range(pairs):
        total = tl.sum(matrix, axis=0, keep_dims=True) + eps
        tl.store(target + column_at, total, mask=column_mask)
        matrix = matrix / total
        target += size * count
        total = tl.sum(matrix, axis=1, keep_dims=True) + eps
        tl.store(target + row_at, total, mask=row_mask)
        matrix = matrix / total
        target += size * count
    total = tl.sum(matrix, axis=0, keep_dims=True) + eps
    tl.store(target + column_at, total, mask=column_mask)
    tl.store(matrices + at, matrix / total, mask=mask)


@triton.jit(do_not_specialize=["count", "pairs", "eps"])
def _sinkhorn_backward(
    grad, matrices, sums, grad_logits, count, pairs, eps, size: tl.constexpr, block_size: tl.constexpr, block: tl.constexpr
):
    i, j = tl.arange(0, block_size)[:, None, None], tl.arange(0, block_size)[None, :, None]
    n = tl.program_id(0) * block + tl.arange(0, block)[None, None, :]
    mask = (i < size) & (j < size) & (n < count)
    at = (i * size + j).to(tl.int64) * count + n
    column_at, column_mask = j.to(tl.int64) * count + n, (j < size) & (n < count)
    row_at, row_mask = i.to(tl.int64) * count + n, (i < size) & (n < count)
    matrix = tl.load(matrices + at, mask=mask, other=0.0)
    g = tl.load(grad + at, mask=mask, other=0.0)
    step = size * tl.cast(count, tl.int64)
    source = sums + 2 * pairs * step
    total = tl.load(source + column_at, mask=column_mask, other=1.0)
    g = (g - tl.sum(g * matrix, axis=0, keep_dims=True)) / total
    matrix *= total  # as it was before this step
    for _ in range(pairs):
        source -= step
        total = tl.load(source + row_at, mask=row_mask, other=1.0)
        g = (g - tl.sum(g * matrix, axis=1, keep_dims=True)) / total
        matrix *= total
        source -= step
        total = tl.load(source + column_at, mask=column_mask, other=1.0)
        g = (g - tl.sum(g * matrix, axis=0, keep_dims=True)) / total
        matrix *= total
    matrix = tl.maximum(matrix - eps, 0.0)  # the softmax
    tl.store(grad_logits + at, matrix * (g - tl.sum(g * matrix, axis=1, keep_dims=True)), mask=mask)


class _Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, iterations: int, eps: float) -> Tensor:
        logits = logits.contiguous()
        size, _, count = logits.shape
        matrices, sums = torch.empty_like(logits), logits.new_empty(2 * iterations - 1, size, count)
        grid, sizes = _matrix_tiles(logits)
        _sinkhorn_forward[grid](logits, matrices, sums, count, iterations - 1, eps, **sizes)
        ctx.save_for_backward(matrices, sums)
        ctx.iterations, ctx.eps = iterations, eps
        return matrices

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        matrices, sums = ctx.saved_tensors
        grad_logits = torch.empty_like(matrices)
        grid, sizes = _matrix_tiles(matrices)
        _sinkhorn_backward[grid](grad.contiguous(), matrices, sums, grad_logits, matrices.shape[2], ctx.iterations - 1, ctx.eps, **sizes)
        return grad_logits, None, None


def _matrix_tiles(matrices: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """Grid and sizes: a thread has a whole matrix, or 32 numbers of a large one, so that most sums need no exchange."""
    size, _, count = matrices.shape
    block_size = triton.next_power_of_2(size)
    return (triton.cdiv(count, 32),), {"size": size, "block_size": block_size, "block": 32, "num_warps": max(1, block_size**2 // 32)}


def doubly_stochastic(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """Matrices whose rows and columns sum to 1 (`model.hyperconnection.doubly_stochastic`): fp32 [M, M, N] -> fp32 [M, M, N]."""
    matrices: Tensor = _Sinkhorn.apply(logits, iterations, eps)
    return matrices


@triton.jit(do_not_specialize=["rows"])
def _write_forward(
    post, residual, out, hidden, result, rows,
    branches: tl.constexpr, width: tl.constexpr, block_rows: tl.constexpr, block_branches: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * block_rows + tl.arange(0, block_rows)).to(tl.int64)
    branch, channel = tl.arange(0, block_branches), tl.arange(0, block_width)
    mask = (row[:, None] < rows) & (channel[None, :] < width)
    weight_mask = (row[:, None] < rows) & (branch[None, :] < branches)
    at = row[:, None] * (branches * width) + channel[None, :]
    h = tl.load(
        hidden + row[:, None, None] * (branches * width) + branch[None, :, None] * width + channel[None, None, :],
        mask=weight_mask[:, :, None] & (channel[None, None, :] < width), other=0.0,
    ).to(tl.float32)  # [rows, branches, d]  # fmt: skip
    o = tl.load(out + row[:, None] * width + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    for k in range(branches):
        p = tl.load(post + tl.cast(k, tl.int64) * rows + row, mask=row < rows, other=0.0)
        r = tl.load(residual + (branch * branches + k).to(tl.int64)[None, :] * rows + row[:, None], mask=weight_mask, other=0.0)
        tl.store(result + at + k * width, p[:, None] * o + tl.sum(r[:, :, None] * h, axis=1), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def _write_backward(
    grad, post, residual, out, hidden, grad_post, grad_residual, grad_out, grad_hidden, rows,
    branches: tl.constexpr, width: tl.constexpr, block_rows: tl.constexpr, block_branches: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * block_rows + tl.arange(0, block_rows)).to(tl.int64)
    branch, channel = tl.arange(0, block_branches), tl.arange(0, block_width)
    mask = (row[:, None] < rows) & (channel[None, :] < width)
    weight_mask = (row[:, None] < rows) & (branch[None, :] < branches)
    at = row[:, None] * (branches * width) + channel[None, :]
    g = tl.load(
        grad + row[:, None, None] * (branches * width) + branch[None, :, None] * width + channel[None, None, :],
        mask=weight_mask[:, :, None] & (channel[None, None, :] < width), other=0.0,
    ).to(tl.float32)  # [rows, branches, d]  # fmt: skip
    out_at, post_at = row[:, None] * width + channel[None, :], branch.to(tl.int64)[None, :] * rows + row[:, None]
    o = tl.load(out + out_at, mask=mask, other=0.0).to(tl.float32)
    p = tl.load(post + post_at, mask=weight_mask, other=0.0)
    tl.store(grad_out + out_at, tl.sum(p[:, :, None] * g, axis=1), mask=mask)
    tl.store(grad_post + post_at, tl.sum(o[:, None, :] * g, axis=2), mask=weight_mask)
    for j in range(branches):
        residual_at = (j * branches + branch).to(tl.int64)[None, :] * rows + row[:, None]
        r = tl.load(residual + residual_at, mask=weight_mask, other=0.0)
        h = tl.load(hidden + at + j * width, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_hidden + at + j * width, tl.sum(r[:, :, None] * g, axis=1), mask=mask)
        tl.store(grad_residual + residual_at, tl.sum(h[:, None, :] * g, axis=2), mask=weight_mask)


@triton.jit(do_not_specialize=["rows"])
def _merge_forward(
    weights, hidden, result, rows,
    branches: tl.constexpr, width: tl.constexpr, block_rows: tl.constexpr, block_branches: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * block_rows + tl.arange(0, block_rows)).to(tl.int64)
    branch, channel = tl.arange(0, block_branches), tl.arange(0, block_width)
    weight_mask = (row[:, None] < rows) & (branch[None, :] < branches)
    at = row[:, None, None] * (branches * width) + branch[None, :, None] * width + channel[None, None, :]
    h = tl.load(hidden + at, mask=weight_mask[:, :, None] & (channel[None, None, :] < width), other=0.0).to(tl.float32)
    w = tl.load(weights + branch.to(tl.int64)[None, :] * rows + row[:, None], mask=weight_mask, other=0.0)
    mask = (row[:, None] < rows) & (channel[None, :] < width)
    tl.store(result + row[:, None] * width + channel[None, :], tl.sum(w[:, :, None] * h, axis=1), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def _merge_backward(
    grad, weights, hidden, grad_weights, grad_hidden, rows,
    branches: tl.constexpr, width: tl.constexpr, block_rows: tl.constexpr, block_branches: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * block_rows + tl.arange(0, block_rows)).to(tl.int64)
    branch, channel = tl.arange(0, block_branches), tl.arange(0, block_width)
    weight_mask = (row[:, None] < rows) & (branch[None, :] < branches)
    at = row[:, None, None] * (branches * width) + branch[None, :, None] * width + channel[None, None, :]
    mask = weight_mask[:, :, None] & (channel[None, None, :] < width)
    h = tl.load(hidden + at, mask=mask, other=0.0).to(tl.float32)
    grad_mask = (row[:, None] < rows) & (channel[None, :] < width)
    g = tl.load(grad + row[:, None] * width + channel[None, :], mask=grad_mask, other=0.0).to(tl.float32)[:, None, :]
    weight_at = branch.to(tl.int64)[None, :] * rows + row[:, None]
    w = tl.load(weights + weight_at, mask=weight_mask, other=0.0)
    tl.store(grad_hidden + at, w[:, :, None] * g, mask=mask)
    tl.store(grad_weights + weight_at, tl.sum(h * g, axis=2), mask=weight_mask)


def _branch_tiles(hidden: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """Grid and sizes for a kernel over tokens [N, M, d], each of which is in one program with all its branches."""
    rows, branches, width = hidden.shape
    block_branches, block_width = triton.next_power_of_2(branches), triton.next_power_of_2(width)
    block_rows = rows_per_tile(block_branches * block_width, rows)
    return (triton.cdiv(rows, block_rows),), {
        "branches": branches, "width": width, "block_rows": block_rows, "block_branches": block_branches, "block_width": block_width,
        "num_warps": 4 if block_branches * block_width <= 2048 else 8,
    }  # fmt: skip


class _Write(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, post: Tensor, residual: Tensor, out: Tensor, hidden: Tensor) -> Tensor:
        inputs = tuple(x.contiguous() for x in (post, residual, out, hidden))
        result = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
        grid, sizes = _branch_tiles(hidden)
        _write_forward[grid](*inputs, result, len(hidden), **sizes)
        ctx.save_for_backward(*inputs)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        inputs = ctx.saved_tensors
        grads = tuple(torch.empty_like(x) for x in inputs)
        grid, sizes = _branch_tiles(inputs[3])
        _write_backward[grid](grad.contiguous(), *inputs, *grads, len(grad), **sizes)
        return grads


def written(post: Tensor, residual: Tensor, out: Tensor, hidden: Tensor) -> Tensor:
    """`post[k] out + sum over j of residual[j, k] hidden[j]` for each branch k.

    Args:
        post: fp32 [M, N].
        residual: fp32 [M, M, N].
        out: what the sublayer returned, fp32 or bf16 [N, d].
        hidden: fp32 or bf16 [N, M, d].

    Returns [N, M, d] in the dtype of the hidden states.
    """
    result: Tensor = _Write.apply(post, residual, out, hidden)
    return result


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, hidden: Tensor) -> Tensor:
        weights, hidden = weights.contiguous(), hidden.contiguous()
        result = hidden.new_empty(len(hidden), hidden.shape[2])
        grid, sizes = _branch_tiles(hidden)
        _merge_forward[grid](weights, hidden, result, len(hidden), **sizes)
        ctx.save_for_backward(weights, hidden)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        weights, hidden = ctx.saved_tensors
        grad_weights, grad_hidden = torch.empty_like(weights), torch.empty_like(hidden)
        grid, sizes = _branch_tiles(hidden)
        _merge_backward[grid](grad.contiguous(), weights, hidden, grad_weights, grad_hidden, len(hidden), **sizes)
        return grad_weights, grad_hidden


def merged(weights: Tensor, hidden: Tensor) -> Tensor:
    """Weighted sum of the branches: weights fp32 [M, N], hidden states fp32 or bf16 [N, M, d] -> [N, d] in their dtype."""
    result: Tensor = _Merge.apply(weights, hidden)
    return result
