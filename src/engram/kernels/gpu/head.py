"""The head's cross-entropy: one pass over the logits gives losses and, in their place, gradients."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from engram.kernels import gpu
from engram.kernels.gpu.casts import product_copy
from engram.kernels.gpu.products import wide_product

CHUNK_BYTES = 1 << 29
"""Logits that exist at a time."""
_BLOCK = 4096


@triton.jit
def _cross_entropy(logits, targets, losses, vocabulary: tl.constexpr, gradients: tl.constexpr, block: tl.constexpr):
    """One row of logits per program, as often through the cache as through memory: row and cache are of one size."""
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * vocabulary
    target = tl.load(targets + row)
    wanted = tl.load(start + target).to(tl.float32)
    largest = float("-inf")
    total = 0.0
    for first in range(0, vocabulary, block):
        columns = first + tl.arange(0, block)
        x = tl.load(start + columns, mask=columns < vocabulary, other=float("-inf")).to(tl.float32)
        above = tl.maximum(largest, tl.max(x, 0))
        total = total * tl.exp(largest - above) + tl.sum(tl.exp(x - above), 0)
        largest = above
    tl.store(losses + row, tl.log(total) + largest - wanted)
    if gradients:
        for first in range(0, vocabulary, block):
            columns = first + tl.arange(0, block)
            inside = columns < vocabulary
            x = tl.load(start + columns, mask=inside, other=float("-inf")).to(tl.float32)
            grad = tl.exp(x - largest) / total
            grad = tl.where(columns == target, grad - 1, grad)
            tl.store(start + columns, grad.to(logits.dtype.element_ty), mask=inside)


def cross_entropy(logits: Tensor, targets: Tensor, gradients: bool) -> Tensor:
    """Losses in nats, fp32 [n], of logits fp32 or bf16 [n, V] and targets int64 [n].

    With `gradients`, the logits are replaced by the gradient of the losses' sum.
    """
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    block = min(_BLOCK, triton.next_power_of_2(logits.shape[1]))
    _cross_entropy[(len(logits),)](logits, targets, losses, logits.shape[1], gradients, block, num_warps=max(1, min(8, block // 512)))
    return losses


def losses_and_gradients(hidden: Tensor, weight: Tensor, targets: Tensor, gradients: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """`ops.head_losses`: hidden [N, d], weight [V, d], targets int64 [N] -> losses fp32 [N], and the gradients of their sum."""
    dtype = gpu.product_dtype(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        states, classes = hidden.detach().to(dtype), product_copy(weight, dtype)
        rows = max(1, CHUNK_BYTES // (len(weight) * states.element_size()))
        losses, of_hidden = [], []
        of_weight: Tensor | None = None
        for part, wanted in zip(states.split(rows), targets.split(rows), strict=True):
            logits = part @ classes.t()  # [n, V]
            losses.append(cross_entropy(logits, wanted.contiguous(), gradients))
            if gradients:
                of_hidden.append(logits @ classes)
                of_part = wide_product(logits.t(), part)
                of_weight = of_part if of_weight is None else of_weight.add_(of_part)
    if not gradients:
        return _joined(losses), None, None
    assert of_weight is not None
    return _joined(losses), _joined(of_hidden).to(hidden.dtype), of_weight.to(weight.dtype)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
