"""Context-aware gate and short convolution: from memory vectors to a residual update (paper, 2.3)."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from engram.history import History
from engram.kernels import memory_ops, ops


def branch_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension with weights [M, d], one set per branch; computes in fp32 or wider.

    [B, T, M, d] -> [B, T, M, d]
    """
    if len(weight) == 1:
        return ops.rms_norm(x, weight[0], eps)
    wide = x if x.dtype == torch.float64 else x.float()
    return F.rms_norm(wide, wide.shape[-1:], eps=eps) * weight


def short_conv(x: Tensor, weight: Tensor, dilation: int, past: History) -> Tensor:
    """Depthwise causal convolution along time with taps [M, d, kernel]; tap k looks back (kernel - 1 - k) * dilation tokens.

    [B, T, M, d] -> [B, T, M, d]
    """
    kernel, length = weight.shape[-1], x.shape[1]
    history = past.window("conv", x, (kernel - 1) * dilation)  # [B, (kernel - 1) dilation + T, M, d]
    result = x * weight[..., -1]
    for tap in range(kernel - 1):
        result = result + history[:, tap * dilation : tap * dilation + length] * weight[..., tap]
    return result


def gate_keys(weights: Mapping[str, Tensor], vectors: Tensor) -> Tensor:
    """Memory vectors [B, T, d_mem] -> keys [B, T, M, d]."""
    bias = weights.get("key_bias")
    keys = ops.linear(vectors, weights["key"].flatten(0, 1), None if bias is None else bias.flatten())
    return keys.unflatten(-1, weights["key_norm"].shape)


def gates(weights: Mapping[str, Tensor], keys: Tensor, hidden: Tensor, kind: Literal["plain", "signed_sqrt"], eps: float) -> Tensor:
    """Keys and hidden states [B, T, M, d] -> alpha [B, T, M] in (0, 1) (paper, eq. 4)."""
    width = hidden.shape[-1]
    normed = branch_rms_norm(hidden, weights["query_norm"], eps) * branch_rms_norm(keys, weights["key_norm"], eps)
    scores = normed.sum(-1) / math.sqrt(width)  # [B, T, M]
    if kind == "signed_sqrt":
        scores = scores.sign() * scores.abs().clamp_min(1e-6).sqrt()
    return scores.sigmoid()


def gated_values(
    weights: Mapping[str, Tensor], vectors: Tensor, hidden: Tensor, kind: Literal["plain", "signed_sqrt"], eps: float
) -> Tensor:
    """`u = alpha * W_V e`: memory vectors [B, T, d_mem] and hidden states [B, T, M, d] -> [B, T, M, d]."""
    values = ops.linear(vectors, weights["value"], weights.get("value_bias"))  # [B, T, d]
    keys = gate_keys(weights, vectors)  # [B, T, M, d]
    done = memory_ops.gated(hidden, keys, values, weights["query_norm"], weights["key_norm"], eps, kind == "signed_sqrt")
    if done is not None:
        return done
    return gates(weights, keys, hidden, kind, eps).unsqueeze(-1) * values.unsqueeze(2)


def ungated_values(weights: Mapping[str, Tensor], vectors: Tensor, branches: int) -> Tensor:
    """`u = W_V e` for every branch: memory vectors [B, T, d_mem] -> [B, T, M, d]."""
    values = ops.linear(vectors, weights["value"], weights.get("value_bias"))  # [B, T, d]
    return values.unsqueeze(2).expand(-1, -1, branches, -1).contiguous()


def convolved(weights: Mapping[str, Tensor], update: Tensor, dilation: int, eps: float, past: History) -> Tensor:
    """`Y = SiLU(conv(norm(u))) + u`: [B, T, M, d] -> [B, T, M, d]."""
    if past.is_empty:
        done = memory_ops.convolved(update, weights["conv_norm"], weights["conv"], dilation, eps)
        if done is not None:
            return done
    return F.silu(short_conv(branch_rms_norm(update, weights["conv_norm"], eps), weights["conv"], dilation, past)) + update
