"""AdamW for many weights in one launch, as `torch.optim.AdamW` does it; gradients are clipped as they are read."""

from collections.abc import Sequence
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from engram.kernels.gpu import step_numbers, together

_RATE = tl.constexpr(step_numbers.RATE)
_CORRECTION1 = tl.constexpr(step_numbers.CORRECTION1)
_CORRECTION2 = tl.constexpr(step_numbers.CORRECTION2)
_BLOCK = 1024


@triton.jit
def _step(weights, grads, firsts, seconds, steps, table, numbers, factor, weight_decay, gain1, beta2, gain2, eps, block: tl.constexpr):
    number, i, inside = together.own_block(table, block)
    weight, first, second = together.pick(weights, number), together.pick(firsts, number), together.pick(seconds, number)
    g = tl.load(together.pick(grads, number) + i, mask=inside, other=0.0) * tl.load(factor)
    m = tl.load(first + i, mask=inside, other=0.0)
    v = tl.load(second + i, mask=inside, other=0.0)
    w = tl.load(weight + i, mask=inside, other=0.0)
    rate = tl.load(numbers + _RATE)
    m += (g - m) * gain1
    v = v * beta2 + g * g * gain2
    change = (m / tl.load(numbers + _CORRECTION1)) / (tl.sqrt(v / tl.load(numbers + _CORRECTION2)) + eps)
    tl.store(first + i, m, mask=inside)
    tl.store(second + i, v, mask=inside)
    tl.store(weight + i, w * (1 - rate * weight_decay) - rate * change, mask=inside)
    if tl.load(table + tl.program_id(0).to(tl.int64) * 3 + 1) == 0:
        step = together.pick(steps, number)
        tl.store(step, tl.load(step) + 1)


@dataclass(frozen=True)
class Moments:
    """The state of a weight."""

    step: Tensor
    """fp32 []: steps taken; for checkpoints only."""
    first: Tensor
    """fp32, as the weight."""
    second: Tensor
    """fp32, as the weight."""


class AdamW:
    """AdamW for weights with the same decay.

    Args:
        weights: fp32, contiguous.
        moments: of each weight.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: weights shrink by this times the rate.
    """

    def __init__(
        self, weights: Sequence[Tensor], moments: Sequence[Moments], betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        self._weights, self._moments, self._betas, self._eps, self._weight_decay = weights, moments, betas, eps, weight_decay
        self._groups = [slice(start, start + together.MOST) for start in range(0, len(weights), together.MOST)]
        sizes = [weight.numel() for weight in weights]
        self._tables = [together.block_table(sizes[group], _BLOCK, weights[0].device) for group in self._groups]

    def step(self, grads: Sequence[Tensor], numbers: Tensor, factor: Tensor) -> None:
        """Update all weights in place.

        Args:
            grads: fp32, of each weight.
            numbers: fp32, as `StepScalars.on_device`.
            factor: fp32 []: what the gradients are multiplied with.
        """
        grads = together.readable(grads)
        numbers_of_rule = self._weight_decay, 1 - self._betas[0], self._betas[1], 1 - self._betas[1], self._eps
        for group, table in zip(self._groups, self._tables, strict=True):
            moments = self._moments[group]
            lists = self._weights[group], grads[group], [m.first for m in moments], [m.second for m in moments], [m.step for m in moments]
            _step[(len(table),)](*map(together.filled, lists), table, numbers, factor, *numbers_of_rule, _BLOCK)
