"""Causal attention with rotary positions: one kernel prepares queries and keys, and PyTorch's fused attention does the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from engram.kernels import gpu
from engram.kernels.gpu.sizing import rows_per_tile

aten = torch.ops.aten
_MAX_HEAD_DIM = 256


@triton.jit(do_not_specialize=["rows", "length"])
def _prepare_forward(
    qkv, cos, sin, query, key, rows, length,
    half: tl.constexpr, pairs: tl.constexpr, shift: tl.constexpr, block_rows: tl.constexpr, block_pairs: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)[:, None]
    pair = tl.arange(0, block_pairs)[None, :]
    mask = (row < rows) & (pair < pairs)
    position, channel = row % length, pair % half
    first = (pair // half) * (2 * half) + channel
    at, source = row.to(tl.int64) * (2 * pairs), row.to(tl.int64) * (6 * pairs)
    c = tl.load(cos + position * half + channel, mask=mask, other=0.0)
    s = tl.load(sin + position * half + channel, mask=mask, other=0.0)

    x = tl.load(qkv + source + first, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(qkv + source + first + half, mask=mask, other=0.0).to(tl.float32)
    tl.store(query + at + first, x * c - y * s, mask=mask)
    tl.store(query + at + first + half, y * c + x * s, mask=mask)

    source += 2 * pairs
    present = mask
    if shift:  # the slow pairs come from the previous position
        moved = channel >= half - half // 2
        source -= tl.where(moved, 6 * pairs, 0)
        present = mask & ((position > 0) | (channel < half - half // 2))
    x = tl.load(qkv + source + first, mask=present, other=0.0).to(tl.float32)
    y = tl.load(qkv + source + first + half, mask=present, other=0.0).to(tl.float32)
    tl.store(key + at + first, x * c - y * s, mask=mask)
    tl.store(key + at + first + half, y * c + x * s, mask=mask)


@triton.jit(do_not_specialize=["rows", "length"])
def _prepare_backward(
    grad_query, grad_key, grad_value, cos, sin, grad_qkv, rows, length,
    half: tl.constexpr, pairs: tl.constexpr, shift: tl.constexpr, block_rows: tl.constexpr, block_pairs: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)[:, None]
    pair = tl.arange(0, block_pairs)[None, :]
    mask = (row < rows) & (pair < pairs)
    position, channel = row % length, pair % half
    first = (pair // half) * (2 * half) + channel
    at, target = row.to(tl.int64) * (2 * pairs), row.to(tl.int64) * (6 * pairs)
    c = tl.load(cos + position * half + channel, mask=mask, other=0.0)
    s = tl.load(sin + position * half + channel, mask=mask, other=0.0)

    x = tl.load(grad_query + at + first, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(grad_query + at + first + half, mask=mask, other=0.0).to(tl.float32)
    tl.store(grad_qkv + target + first, x * c + y * s, mask=mask)
    tl.store(grad_qkv + target + first + half, y * c - x * s, mask=mask)

    x = tl.load(grad_value + at + first, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(grad_value + at + first + half, mask=mask, other=0.0).to(tl.float32)
    tl.store(grad_qkv + target + 4 * pairs + first, x, mask=mask)
    tl.store(grad_qkv + target + 4 * pairs + first + half, y, mask=mask)

    source = at
    present = mask
    if shift:  # the slow pairs went to the next position, and were rotated by its angles
        moved = channel >= half - half // 2
        source = at + tl.where(moved, 2 * pairs, 0)
        position += tl.where(moved, 1, 0)
        present = mask & (position < length)
        c = tl.load(cos + position * half + channel, mask=present, other=0.0)
        s = tl.load(sin + position * half + channel, mask=present, other=0.0)
    x = tl.load(grad_key + source + first, mask=present, other=0.0).to(tl.float32)
    y = tl.load(grad_key + source + first + half, mask=present, other=0.0).to(tl.float32)
    tl.store(grad_qkv + target + 2 * pairs + first, x * c + y * s, mask=mask)
    tl.store(grad_qkv + target + 2 * pairs + first + half, y * c - x * s, mask=mask)


def _tiles(qkv: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """Grid and sizes for a kernel over the tokens of [B, T, 3, h, c]."""
    b, t, _, h, c = qkv.shape
    block_pairs = triton.next_power_of_2(h * c // 2)
    block_rows = rows_per_tile(block_pairs, b * t, 1024)  # six loads and four stores of a tile keep a program busy
    return (triton.cdiv(b * t, block_rows),), {
        "half": c // 2, "pairs": h * c // 2, "block_rows": block_rows, "block_pairs": block_pairs,
    }  # fmt: skip


@contextmanager
def _deterministic() -> Iterator[None]:
    """PyTorch's fused attention adds the gradients of queries or keys in whatever order blocks finish, unless this is asked of it."""
    before, fills = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


def _has_flash(x: Tensor) -> bool:
    return x.dtype != torch.float32 and torch.cuda.get_device_capability(x.device) >= (8, 0)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, list[Any]]:
    """Causal attention [B, h, T, c] x 3 -> [B, h, T, c], stored like [B, T, h, c], and what `attend_backward` needs besides.

    Flash attention for bf16 and the memory-efficient one for fp32, by name: cuDNN's, which PyTorch would prefer, plans anew for each shape,
    and its backward pass is not deterministic.
    """
    if query.device.type == "cpu":
        out, *saved = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, True, scale=scale)
    elif _has_flash(query):
        out, *saved, _ = aten._scaled_dot_product_flash_attention(query, key, value, 0.0, True, False, scale=scale)
    else:
        out, *saved = aten._scaled_dot_product_efficient_attention(query, key, value, None, True, 0.0, True, scale=scale)
    return out, saved


def attend_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, saved: list[Any], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attend` with respect to query, key and value, the same at each run."""
    if query.device.type == "cpu":
        grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, query, key, value, out, *saved, 0.0, True, scale=scale)
        return grads[0], grads[1], grads[2]
    with _deterministic():
        if _has_flash(query):
            *lengths, state, unused = saved
            grads = aten._scaled_dot_product_flash_attention_backward(
                grad, query, key, value, out, *lengths, 0.0, True, state, unused, scale=scale
            )
        else:
            wanted = [True, True, True, False]
            grads = aten._scaled_dot_product_efficient_attention_backward(
                grad, query, key, value, None, out, *saved, 0.0, wanted, True, scale=scale
            )
    return grads[0], grads[1], grads[2]


def _keep(ctx: Any, saved: list[Any], *tensors: Tensor) -> None:
    """Keep tensors and what `attend` returned besides, not all of which are tensors, for the way back."""
    ctx.save_for_backward(*tensors, *(x for x in saved if isinstance(x, Tensor)))
    ctx.count, ctx.others = len(tensors), [None if isinstance(x, Tensor) else (x,) for x in saved]


def _kept(ctx: Any) -> tuple[tuple[Tensor, ...], list[Any]]:
    """What `_keep` was given."""
    tensors, left = ctx.saved_tensors[: ctx.count], iter(ctx.saved_tensors[ctx.count :])
    return tensors, [next(left) if other is None else other[0] for other in ctx.others]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, scale: float, shift: bool, dtype: torch.dtype) -> Tensor:
        qkv, cos, sin = qkv.contiguous(), cos.contiguous(), sin.contiguous()
        b, t, _, h, c = qkv.shape
        query, key = qkv.new_empty(2, b, t, h, c, dtype=dtype)
        grid, sizes = _tiles(qkv)
        _prepare_forward[grid](qkv, cos, sin, query, key, b * t, t, shift=shift, **sizes)
        # A view: all that attention asks of its inputs is that a head's channels lie side by side.
        query, key, value = (x.transpose(1, 2) for x in (query, key, qkv[:, :, 2].to(dtype)))  # [B, h, T, c]
        out, saved = attend(query, key, value, scale)
        _keep(ctx, saved, qkv, cos, sin, query, key, value, out)
        ctx.scale, ctx.shift = scale, shift
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (qkv, cos, sin, query, key, value, out), saved = _kept(ctx)
        grad = grad.to(out.dtype).contiguous().transpose(1, 2)
        by_head = attend_backward(grad, query, key, value, out, saved, ctx.scale)
        grads = [x.transpose(1, 2).contiguous() for x in by_head]  # [B, T, h, c], as they are stored
        grad_qkv = torch.empty_like(qkv)
        grid, sizes = _tiles(qkv)
        _prepare_backward[grid](*grads, cos, sin, grad_qkv, qkv.shape[0] * qkv.shape[1], qkv.shape[1], shift=ctx.shift, **sizes)
        return grad_qkv, None, None, None, None, None


def fits(qkv: Tensor, cos: Tensor) -> bool:
    """Whether `causal_attention` can be used: heads of a width that PyTorch's fused attention takes unpadded, positions fp32 [T, c / 2]."""
    c = qkv.shape[-1]
    return c % 8 == 0 and c <= _MAX_HEAD_DIM and cos.ndim == 2 and cos.dtype == torch.float32 and qkv.numel() > 0


def causal_attention(qkv: Tensor, cos: Tensor, sin: Tensor, scale: float, shift: bool) -> Tensor:
    """Causal attention with rotary positions on fused projections, in the dtype of products.

    Args:
        qkv: queries, keys and values, fp32 or bf16 [B, T, 3, h, c].
        cos: fp32 [T, c / 2].
        sin: fp32 [T, c / 2].
        scale: factor on the scores.
        shift: whether half of the key channels come from the previous position (`model.attention.shift_half`).

    Returns [B, T, h, c].
    """
    dtype = gpu.product_dtype(qkv) if qkv.dtype == torch.float32 else qkv.dtype
    mixed: Tensor = _Attention.apply(qkv, cos, sin, scale, shift, dtype)
    return mixed


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out, saved = attend(query, key, value, scale)
        _keep(ctx, saved, query, key, value, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (query, key, value, out), saved = _kept(ctx)
        return *attend_backward(grad.to(out.dtype), query, key, value, out, saved, ctx.scale), None


def repeatable_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Causal attention whose gradients are the same at each run: [B, h, T, c] x 2, [B, h, T, v] -> [B, h, T, v], v at most c.

    Channels of zeros make the heads as wide as fused attention wants them: equally wide, and a multiple of 8.
    """
    wide = -(-query.shape[-1] // 8) * 8
    query, key, padded = (F.pad(x, (0, wide - x.shape[-1])) for x in (query, key, value))
    out: Tensor = _Attend.apply(query, key, padded, scale)
    return out[..., : value.shape[-1]]
