"""Manifold-constrained hyper-connections (Xie et al., 2025, arXiv 2512.24880): M residual branches instead of one.

A sublayer reads a mixture of the branches (pre), its output is added to each branch with a weight (post), and the branches are mixed among
themselves by a doubly stochastic matrix (residual). All three are functions of the token's branches.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.config.model import ModelConfig
from engram.kernels import gpu

SINKHORN_ITERATIONS = 20
"""Normalisations of rows, and of columns (DeepSeek-V4's setting)."""
EPS = 1e-6
"""Keeps mixtures from vanishing and sums from being divided by zero (DeepSeek-V4's setting)."""
DYNAMIC_START = 0.01
"""Initial value of the factors on the token-dependent part. Our choice: small, so that a model starts out like the plain one."""
STATIC_START = 4.0
"""Initial value of the static logits. Our choice: each sublayer reads mostly one branch, in turn, and branches hardly mix."""

Sublayer = Callable[[Tensor], Tensor]


class _Sinkhorn(torch.autograd.Function):
    """Alternating normalisation of columns and rows. The backward pass is written by hand, because autograd's graph of 39 divisions of tiny
    matrices costs more than an attention layer of a small model."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        probabilities = logits.softmax(1)
        matrix, steps = probabilities + EPS, []
        for i in range(2 * SINKHORN_ITERATIONS - 1):
            sums = matrix.sum(i % 2, keepdim=True).add_(EPS)
            matrix = matrix / sums
            steps += [matrix, sums]
        ctx.save_for_backward(probabilities, *steps)
        return matrix

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        probabilities, *steps = ctx.saved_tensors
        for i in reversed(range(len(steps) // 2)):
            matrix, sums = steps[2 * i], steps[2 * i + 1]
            grad = (grad - (grad * matrix).sum(i % 2, keepdim=True)).div_(sums)
        return probabilities * (grad - (grad * probabilities).sum(1, keepdim=True))


def doubly_stochastic(logits: Tensor) -> Tensor:
    """Matrices whose rows and columns sum to 1, by Sinkhorn-Knopp iterations from a softmax over each row.

    [M, M, N]: rows, columns, matrices -> [M, M, N]
    """
    if gpu.usable(logits) and logits.dtype == torch.float32:
        from engram.kernels.gpu import hyperconnection

        return hyperconnection.doubly_stochastic(logits, SINKHORN_ITERATIONS, EPS)
    return _Sinkhorn.apply(logits)


class _Write(torch.autograd.Function):
    """`post[k] out + sum over j of residual[j, k] hidden[j]`, branch by branch: a 4 x 4 matrix per token is too small for a matrix
    multiplication to pay."""

    @staticmethod
    def forward(ctx: Any, post: Tensor, residual: Tensor, out: Tensor, hidden: Tensor) -> Tensor:
        result = post.t().unsqueeze(-1) * out.unsqueeze(1)  # [N, M, d]
        branches = range(hidden.shape[1])
        for k in branches:
            for j in branches:
                result[:, k].addcmul_(residual[j, k].unsqueeze(-1), hidden[:, j])
        ctx.save_for_backward(post, residual, out, hidden)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        post, residual, out, hidden = ctx.saved_tensors
        grad_post, grad_residual, grad_hidden = torch.empty_like(post), torch.empty_like(residual), torch.zeros_like(hidden)
        grad_out = torch.zeros_like(out)
        branches = range(hidden.shape[1])
        for k in branches:
            grad_out.addcmul_(post[k].unsqueeze(-1), grad[:, k])
            grad_post[k] = torch.linalg.vecdot(out, grad[:, k])
            for j in branches:
                grad_hidden[:, j].addcmul_(residual[j, k].unsqueeze(-1), grad[:, k])
                grad_residual[j, k] = torch.linalg.vecdot(hidden[:, j], grad[:, k])
        return grad_post, grad_residual, grad_out, grad_hidden


def written(post: Tensor, residual: Tensor, out: Tensor, hidden: Tensor) -> Tensor:
    """The branches after a sublayer: post [M, N], residual [M, M, N], output [N, d], branches [N, M, d] -> [N, M, d]."""
    if gpu.usable(hidden) and gpu.usable(out) and post.dtype == torch.float32:
        from engram.kernels.gpu import hyperconnection

        return hyperconnection.written(post, residual, out, hidden)
    return _Write.apply(post, residual, out.to(hidden.dtype), hidden)


def projected(hidden: Tensor, fn: Tensor, eps: float) -> Tensor:
    """Projection of the RMS-normalised concatenation of the branches: [B, T, M, d], fn [c, M d] -> fp32 or wider [c, N = B T].

    The norm has no weights, so its factor is applied to the c results instead of the M d inputs.
    """
    flat = hidden.flatten(2).flatten(0, 1)  # [N, M d]
    flat = flat if flat.dtype == torch.float64 else flat.float()
    return F.linear(fn, flat) * torch.rsqrt(flat.square().mean(-1) + eps)


class HyperConnection(nn.Module):
    """M branches around one sublayer.

    Args:
        config: the model.
        index: number of the connection in the model, which decides which branch it reads at first.
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.branches, self.norm_eps, self.first = config.branches, config.norm_eps, index % config.branches
        size = (2 + self.branches) * self.branches
        self.fn = nn.Parameter(torch.empty(size, self.branches * config.width))
        self.base = nn.Parameter(torch.empty(size))
        self.scale = nn.Parameter(torch.empty(3))
        self.matrices = frozenset({"fn"})
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """Start like a plain residual stream in M equal copies; `Transformer.initialise` draws `fn`, whose effect `scale` keeps small."""
        m = self.branches
        self.scale.fill_(DYNAMIC_START)
        self.base.zero_()
        self.base[:m] = -STATIC_START
        self.base[self.first] = STATIC_START
        self.base[2 * m :] = STATIC_START * torch.eye(m).flatten()
        self.fn.zero_()

    def mixtures(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, M, d] -> for N = B T tokens: pre [M, N] in (0, 1), post [M, N] in (0, 2), residual [M, M, N] doubly stochastic."""
        m = self.branches
        pre, post, residual = projected(hidden, self.fn, self.norm_eps).split([m, m, m * m])
        pre_base, post_base, residual_base = self.base.unsqueeze(-1).split([m, m, m * m])
        pre = (pre * self.scale[0] + pre_base).sigmoid() + EPS
        post = 2 * (post * self.scale[1] + post_base).sigmoid()
        return pre, post, doubly_stochastic((residual * self.scale[2] + residual_base).unflatten(0, (m, m)))

    def forward(self, hidden: Tensor, sublayer: Sublayer) -> Tensor:
        """Hidden states [B, T, M, d], sublayer [B, T, d] -> [B, T, d]; returns [B, T, M, d]."""
        with torch.autocast(hidden.device.type, enabled=False):
            pre, post, residual = self.mixtures(hidden)
            read = merged(pre, hidden)
        out = sublayer(read)
        return written(post, residual, out.flatten(0, 1), hidden.flatten(0, 1)).view_as(hidden)


def merged(weights: Tensor, hidden: Tensor) -> Tensor:
    """Weighted sum of the branches: weights [M, N], hidden states [B, T, M, d] -> [B, T, d]."""
    if gpu.usable(hidden) and weights.dtype == torch.float32:
        from engram.kernels.gpu import hyperconnection

        return hyperconnection.merged(weights, hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
    return (weights.t().view(*hidden.shape[:3], 1) * hidden).sum(2)


class HyperHead(nn.Module):
    """Merges the branches after the last layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        m, self.norm_eps = config.branches, config.norm_eps
        self.fn = nn.Parameter(torch.empty(m, m * config.width))
        self.base = nn.Parameter(torch.empty(m))
        self.scale = nn.Parameter(torch.empty(1))
        self.matrices = frozenset({"fn"})
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """Start close to the mean of the branches."""
        self.scale.fill_(DYNAMIC_START)
        self.base.fill_(-math.log(len(self.base) - 1))
        self.fn.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, M, d] -> [B, T, d]"""
        with torch.autocast(hidden.device.type, enabled=False):
            weights = (projected(hidden, self.fn, self.norm_eps) * self.scale + self.base.unsqueeze(-1)).sigmoid() + EPS
            return merged(weights, hidden)


def connection(config: ModelConfig, index: int) -> HyperConnection | None:
    """The connection around sublayer number `index` of the model; None: its output is added to the only branch."""
    return None if config.branches == 1 else HyperConnection(config, index)
