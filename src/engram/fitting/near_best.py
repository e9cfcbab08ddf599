"""Which rhos cost little more than the best one, and what any of them costs."""

from dataclasses import dataclass

import numpy as np

from engram.fitting.results import Band, NearBest

_LEVEL = 0.95
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Draws:
    """What the measurements leave open, in two ways."""

    grid: np.ndarray
    """[G]"""
    curves: np.ndarray
    """Curves of the fitted forms, nats per token, [B, G]."""
    lowest: np.ndarray
    """Their lowest values, [B]."""
    x: np.ndarray
    """Measured rhos, [k]."""
    values: np.ndarray
    """What the true losses there may be, [C, k]."""
    lowest_possible: np.ndarray
    """How low a convex curve through them can lie, [C]."""


def near_best(draws: Draws, fitted: np.ndarray, margin: float) -> NearBest:
    """The range around the lowest point of the fitted curve [G] within `margin` of it, nats per token, and the cost of each rho.

    A cost is bounded twice, by the curves of the fitted forms and by what convexity alone leaves open (a chord from above, the lowest
    possible value from below), and the higher bound counts.
    """
    grid = draws.grid
    low, high = _run(fitted - fitted.min() <= margin, int(fitted.argmin()))
    cost = draws.curves - draws.lowest[:, None]  # [B, G]
    possible = _chords(draws.x, draws.values, grid) - draws.lowest_possible[:, None]  # [C, G]
    chosen = slice(low, high + 1)
    worst = max(float(np.quantile(one[:, chosen].max(axis=1), _LEVEL)) for one in (cost, possible))
    measured = np.rint((draws.x - grid[0]) / (grid[1] - grid[0])).astype(int)
    estimate = np.interp(draws.x, grid, fitted) - fitted.min()
    below, above = np.quantile(cost[:, measured], _TAILS, axis=0)
    above = np.maximum(above, np.quantile(draws.values - draws.lowest_possible[:, None], _TAILS[1], axis=0))
    return NearBest(
        margin=margin,
        low=float(grid[low]),
        high=float(grid[high]),
        confidence=float((cost[:, chosen] <= margin).mean()),
        worst=max(worst, float(fitted[chosen].max() - fitted.min())),
        cost=Band(draws.x, estimate, np.minimum(below, estimate), np.maximum(above, estimate)),
    )


def _run(inside: np.ndarray, best: int) -> tuple[int, int]:
    """First and last place of the run of true values around `best`."""
    outside = np.flatnonzero(~inside)
    after = int(np.searchsorted(outside, best))
    low = int(outside[after - 1]) + 1 if after > 0 else 0
    high = int(outside[after]) - 1 if after < len(outside) else len(inside) - 1
    return low, high


def _chords(x: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Straight lines between values [C, k] at x, on the grid, [C, G]; a convex curve lies below them."""
    right = np.searchsorted(x, grid).clip(1, len(x) - 1)
    share = (grid - x[right - 1]) / (x[right] - x[right - 1])
    chords: np.ndarray = values[:, right - 1] * (1 - share) + values[:, right] * share
    return chords
