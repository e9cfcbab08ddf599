"""The memory's context-aware gate: values times the sigmoid of a score of hidden states and keys, both RMS-normalised (paper, 2.3)."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels import gpu
from engram.kernels.gpu.sizing import rows_per_tile, shares


@triton.jit
def _scored(h, k, weights, width: tl.constexpr, eps, sqrt: tl.constexpr):
    """Normalised tiles, their factors, the score and the gate: h, k and weights [rows, branches, d] in fp32, zero where masked."""
    h_factor = tl.rsqrt(tl.sum(h * h, axis=2) / width + eps)  # [rows, branches]
    k_factor = tl.rsqrt(tl.sum(k * k, axis=2) / width + eps)
    score = tl.sum(h * k * weights, axis=2) * h_factor * k_factor / tl.sqrt(width * 1.0)
    gate = score
    if sqrt:
        size = tl.sqrt(tl.maximum(tl.abs(score), 1e-6))
        gate = tl.where(score > 0, size, tl.where(score < 0, -size, 0.0))
    return h_factor, k_factor, score, tl.sigmoid(gate)


@triton.jit(do_not_specialize=["rows", "eps"])
def _gate_forward(
    hidden, keys, values, query_norm, key_norm, update, rows, eps,
    branches: tl.constexpr, width: tl.constexpr, sqrt: tl.constexpr,
    block_rows: tl.constexpr, block_branches: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    branch, channel = tl.arange(0, block_branches)[None, :, None], tl.arange(0, block_width)
    within = branch * width + channel[None, None, :]
    weight_mask = (branch < branches) & (channel[None, None, :] < width)
    weights = tl.load(query_norm + within, mask=weight_mask, other=0.0) * tl.load(key_norm + within, mask=weight_mask, other=0.0)
    mask = (row[:, None, None] < rows) & weight_mask
    at = row[:, None, None].to(tl.int64) * (branches * width) + within
    h = tl.load(hidden + at, mask=mask, other=0.0).to(tl.float32)
    k = tl.load(keys + at, mask=mask, other=0.0).to(tl.float32)
    _, _, _, alpha = _scored(h, k, weights, width, eps, sqrt)
    value_mask = (row[:, None] < rows) & (channel[None, :] < width)
    v = tl.load(values + row[:, None].to(tl.int64) * width + channel[None, :], mask=value_mask, other=0.0).to(tl.float32)
    tl.store(update + at, alpha[:, :, None] * v[:, None, :], mask=mask)


@triton.jit(do_not_specialize=["rows", "share", "eps"])
def _gate_backward(
    grad, hidden, keys, values, query_norm, key_norm, grad_hidden, grad_keys, grad_values, partial, rows, share, eps,
    branches: tl.constexpr, width: tl.constexpr, sqrt: tl.constexpr,
    block_rows: tl.constexpr, block_branches: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    branch, channel = tl.arange(0, block_branches)[None, :, None], tl.arange(0, block_width)
    within = branch * width + channel[None, None, :]
    weight_mask = (branch < branches) & (channel[None, None, :] < width)
    query_weight = tl.load(query_norm + within, mask=weight_mask, other=0.0)
    key_weight = tl.load(key_norm + within, mask=weight_mask, other=0.0)
    weights = query_weight * key_weight
    products = tl.zeros((block_branches, block_width), dtype=tl.float32)
    start = tl.program_id(0) * share
    for offset in range(0, share, block_rows):
        row = start + offset + tl.arange(0, block_rows)
        mask = (row[:, None, None] < rows) & weight_mask
        at = row[:, None, None].to(tl.int64) * (branches * width) + within
        h = tl.load(hidden + at, mask=mask, other=0.0).to(tl.float32)
        k = tl.load(keys + at, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
        value_mask = (row[:, None] < rows) & (channel[None, :] < width)
        value_at = row[:, None].to(tl.int64) * width + channel[None, :]
        v = tl.load(values + value_at, mask=value_mask, other=0.0).to(tl.float32)
        h_factor, k_factor, score, alpha = _scored(h, k, weights, width, eps, sqrt)
        tl.store(grad_values + value_at, tl.sum(alpha[:, :, None] * g, axis=1), mask=value_mask)
        back = tl.sum(g * v[:, None, :], axis=2) * alpha * (1 - alpha)
        if sqrt:
            size = tl.abs(score)
            back = tl.where(size > 1e-6, back * 0.5 / tl.sqrt(tl.maximum(size, 1e-6)), 0.0)
        # The sums over channels in the backward pass of both norms are the score, times what comes back to it.
        inner = (back * score / width)[:, :, None]
        back = (back / tl.sqrt(width * 1.0))[:, :, None]
        h, k = h * h_factor[:, :, None], k * k_factor[:, :, None]
        tl.store(grad_hidden + at, h_factor[:, :, None] * (back * weights * k - inner * h), mask=mask)
        tl.store(grad_keys + at, k_factor[:, :, None] * (back * weights * h - inner * k), mask=mask)
        products += tl.sum(back * h * k, axis=0)
    target = partial + tl.program_id(0).to(tl.int64) * (2 * branches * width) + within
    tl.store(target, products[None, :, :] * key_weight, mask=weight_mask)
    tl.store(target + branches * width, products[None, :, :] * query_weight, mask=weight_mask)


def _sizes(rows: int, branches: int, width: int) -> dict[str, int]:
    block_branches, block_width = triton.next_power_of_2(branches), triton.next_power_of_2(width)
    return {
        "branches": branches, "width": width, "block_rows": rows_per_tile(block_branches * block_width, rows),
        "block_branches": block_branches, "block_width": block_width, "num_warps": 4 if block_branches * block_width <= 2048 else 8,
    }  # fmt: skip


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
        dtype: torch.dtype,
    ) -> Tensor:
        inputs = tuple(x.contiguous() for x in (hidden, keys, values, query_norm, key_norm))
        *_, branches, d = hidden.shape
        rows = values.numel() // d
        update = torch.empty(hidden.shape, dtype=dtype, device=hidden.device)
        sizes = _sizes(rows, branches, d)
        _gate_forward[(triton.cdiv(rows, sizes["block_rows"]),)](*inputs, update, rows, eps, sqrt=sqrt, **sizes)
        ctx.save_for_backward(*inputs)
        ctx.eps, ctx.sqrt = eps, sqrt
        return update

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, keys, values, query_norm, key_norm = ctx.saved_tensors
        *_, branches, d = hidden.shape
        rows = values.numel() // d
        sizes = _sizes(rows, branches, d)
        programs, share = shares(rows, sizes["block_rows"])
        grads = [torch.empty_like(x) for x in (hidden, keys, values)]
        partial = torch.empty(programs, 2, branches, d, dtype=torch.float32, device=grad.device)
        _gate_backward[(programs,)](
            grad.contiguous(), hidden, keys, values, query_norm, key_norm, *grads, partial, rows, share, ctx.eps, sqrt=ctx.sqrt, **sizes
        )  # fmt: skip
        return *grads, *partial.sum(0), None, None, None


def gated(hidden: Tensor, keys: Tensor, values: Tensor, query_norm: Tensor, key_norm: Tensor, eps: float, sqrt: bool) -> Tensor:
    """Values [B, T, d] times the gate of hidden states and keys [B, T, M, d] (norm weights fp32 [M, d]).

    Args:
        hidden: fp32 or bf16.
        keys: fp32 or bf16.
        values: fp32 or bf16.
        query_norm: of the hidden states.
        key_norm: of the keys.
        eps: of both norms.
        sqrt: whether the score's signed square root is taken (`memory.fusion.gates`).

    Returns [B, T, M, d] in the dtype of products.
    """
    update: Tensor = _Gate.apply(hidden, keys, values, query_norm, key_norm, eps, sqrt, gpu.product_dtype(hidden))
    return update
