"""How evenly tokens are spread over the routed experts."""

from collections.abc import Sequence

from torch import Tensor

from engram.model import Transformer
from engram.training.curve import TAIL_FRACTION


def load_spread(loads: Sequence[Tensor]) -> tuple[float, float]:
    """Spread of the experts' tokens, fp32 [E] by layer: largest over mean in the worst layer, coefficient of variation over layers.

    (1, 0) where no layer has experts.
    """
    if not loads:
        return 1.0, 0.0
    worst = max(float(load.max() / load.mean()) for load in loads)
    return worst, sum(float(load.std(correction=0) / load.mean()) for load in loads) / len(loads)


def added_loads(before: list[list[int]], loads: Sequence[Tensor]) -> list[list[int]]:
    """Tokens by layer and expert: those of `before` (empty: none yet) and these."""
    counts: list[list[int]] = [load.long().tolist() for load in loads]
    before = before or [[0] * len(layer) for layer in counts]
    return [[old + new for old, new in zip(*layers, strict=True)] for layers in zip(before, counts, strict=True)]


def starved_experts(model: Transformer, steps: int) -> int:
    """Experts of all layers that no token was sent to in the last `TAIL_FRACTION` of a trial's `steps`."""
    limit = max(1.0, TAIL_FRACTION * steps)
    return sum(int((router.idle_steps >= limit).sum()) for router in model.routers())
