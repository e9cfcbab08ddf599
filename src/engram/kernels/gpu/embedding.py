"""The vocabulary embedding."""

from typing import Any

import torch
from torch import Tensor

from engram.kernels.gpu.gather import gather
from engram.kernels.gpu.segments import segment_sums, sort_ids


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        small = len(weight) <= torch.iinfo(torch.int16).max  # half as many passes of the sort
        ids = tokens.to(torch.int16 if small else torch.int32).reshape(-1)
        ctx.save_for_backward(ids)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return gather(weight.contiguous(), ids, torch.float32).view(*tokens.shape, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        out = torch.zeros(ctx.shape, dtype=torch.float32, device=grad.device)
        segment_sums(sort_ids(ids), grad.reshape(len(ids), -1), out, by_id=True)
        return None, out.to(ctx.dtype)


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    """Token ids int64 [...], weight fp32 or bf16 [V, d] -> fp32 [..., d], with which the residual stream starts."""
    out: Tensor = _Embedding.apply(tokens, weight)
    return out
