"""Context-aware gate and short convolution: from a memory vector to a residual update (paper, 2.3)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BranchRMSNorm(nn.Module):
    """RMSNorm over the last dimension with weights of its own for each branch; computes in fp32 or wider."""

    def __init__(self, branches: int, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(branches, width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, M, d] -> [B, T, M, d]"""
        wide = x if x.dtype == torch.float64 else x.float()
        return F.rms_norm(wide, wide.shape[-1:], eps=self.eps) * self.weight


class ShortConv(nn.Module):
    """Depthwise causal convolution along time; tap k looks back (kernel - 1 - k) * dilation tokens.

    Weights start at zero, so that the layer begins as the identity inside `Fusion`.
    """

    def __init__(self, branches: int, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(branches, width, kernel))
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, M, d] -> [B, T, M, d]"""
        kernel, length = self.weight.shape[-1], x.shape[1]
        result = x * self.weight[..., -1]
        for tap in range(kernel - 1):
            lag = (kernel - 1 - tap) * self.dilation
            if lag < length:
                past = x[:, : length - lag] * self.weight[..., tap]
                result = result + F.pad(past, (0, 0, 0, 0, lag, 0))
        return result


class Fusion(nn.Module):
    """Gate, value and convolution: `Y = SiLU(conv(norm(u))) + u` with `u = alpha * W_V e`.

    Args:
        width: d.
        branches: M; each has its own key projection and norms, the value projection is shared.
        memory_dim: length of the memory vector e.
        conv_kernel: taps of the convolution; 0 for none.
        conv_dilation: its dilation (the paper takes N).
        gate: `plain` (paper, eq. 4) or `signed_sqrt` (public module).
        bias: bias on both projections (public module).
        norm_eps, conv_eps: epsilons of the gate's norms and of the convolution's.
    """

    def __init__(
        self,
        width: int,
        branches: int,
        memory_dim: int,
        conv_kernel: int,
        conv_dilation: int,
        gate: Literal["plain", "signed_sqrt"],
        bias: bool,
        norm_eps: float,
        conv_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.width, self.branches, self.gate = width, branches, gate
        self.key = nn.Linear(memory_dim, branches * width, bias=bias)
        self.value = nn.Linear(memory_dim, width, bias=bias)
        self.key_norm = BranchRMSNorm(branches, width, norm_eps)
        self.query_norm = BranchRMSNorm(branches, width, norm_eps)
        self.conv_norm = BranchRMSNorm(branches, width, conv_eps) if conv_kernel else None
        self.conv = ShortConv(branches, width, conv_kernel, conv_dilation) if conv_kernel else None

    def gates(self, memory: Tensor, hidden: Tensor) -> Tensor:
        """Memory [B, T, d_mem] and hidden states [B, T, M, d] -> alpha [B, T, M] in (0, 1)."""
        keys = self.key(memory).unflatten(-1, (self.branches, self.width))  # [B, T, M, d]
        scores = (self.query_norm(hidden) * self.key_norm(keys)).sum(-1) / math.sqrt(self.width)  # [B, T, M]
        if self.gate == "signed_sqrt":
            scores = scores.sign() * scores.abs().clamp_min(1e-6).sqrt()
        return scores.sigmoid()

    def forward(self, memory: Tensor, hidden: Tensor) -> Tensor:
        """Memory [B, T, d_mem] and hidden states [B, T, M, d] -> update Y [B, T, M, d]."""
        gates = self.gates(memory, hidden)
        update = gates.unsqueeze(-1) * self.value(memory).unsqueeze(2)  # [B, T, M, d]
        if self.conv is None or self.conv_norm is None:
            return update
        return F.silu(self.conv(self.conv_norm(update))) + update
