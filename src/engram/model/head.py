"""Language-model head and cross-entropy combined, in chunks of tokens that stay in cache."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engram.kernels import ops

CHUNK = 256
"""Tokens whose logits exist at a time."""


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """[n, d], [V, d] -> fp32 or wider [n, V]; the product runs in the autocast type."""
    logits = F.linear(hidden, weight)
    return logits if logits.dtype == torch.float64 else logits.float()


class _MeanCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass: the logits are needed once and never kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        done = ops.head_losses(hidden, weight, targets, gradients=True)
        if done is not None:
            losses, grad_hidden, grad_weight = done
            ctx.save_for_backward(grad_hidden, grad_weight)
            ctx.n = len(targets)
            return losses.mean()
        total = hidden.new_zeros((), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for start in range(0, len(targets), CHUNK):
            part, wanted = hidden[start : start + CHUNK], targets[start : start + CHUNK, None]
            logits = _logits(part, weight)  # [chunk, V]
            logits -= logits.amax(-1, keepdim=True)
            wanted_logits = logits.gather(-1, wanted)
            grad = logits.exp_()  # in place from here on: log_softmax would go over the chunk three more times
            normaliser = grad.sum(-1, keepdim=True)
            total += (normaliser.log() - wanted_logits).sum()
            grad /= normaliser
            grad.scatter_add_(-1, wanted, grad.new_full((), -1.0).expand(wanted.shape))
            grad_hidden[start : start + CHUNK] = F.linear(grad, weight.t())
            grad_weight += F.linear(grad.t(), part.t())
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.n = len(targets)
        return total / len(targets)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_output / ctx.n
        return grad_hidden * scale, grad_weight * scale, None


def mean_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean loss in nats of `softmax(hidden weight^T)`: hidden [N, d], weight [V, d], targets int64 [N] -> scalar."""
    return _MeanCrossEntropy.apply(hidden, weight, targets)


@torch.no_grad()
def token_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Loss of every token in nats, without gradient: hidden [N, d], weight [V, d], targets int64 [N] -> fp32 [N]."""
    done = ops.head_losses(hidden, weight, targets, gradients=False)
    if done is not None:
        return done[0]
    parts = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat([F.cross_entropy(_logits(part, weight), wanted, reduction="none") for part, wanted in parts])
