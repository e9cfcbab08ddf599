"""Where a convex curve can have its minimum: the rhos that the measurements do not rule out, whatever the curve's form.

A convex curve with its lowest point at rho0 is a constant plus hinges that rise away from rho0 on both sides, with weights of at least 0.
At the measured rhos these are finitely many, so the best such curve is a problem of non-negative least squares. rho0 stays in the set
unless the curves with their minimum there fit worse than the best convex curve by more than noise would make of a flat one, in 95 of 100
cases (a likelihood ratio test, inverted; of all convex curves the flat one leaves the place of its minimum most open).
"""

import numpy as np
from scipy.optimize import nnls

_LEVEL = 0.05
_CANDIDATES = 41
"""Rhos at which the measurements are tested, besides the measured ones."""
_NULL_CANDIDATES = 15
"""Rhos at which flat curves are tested; what noise makes of them changes slowly between."""
_NULLS = 400
"""Flat curves, at most."""


def minimum_set(x: np.ndarray, means: np.ndarray, covariance: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest x at which a convex curve can have its minimum, at 95 %.

    Args:
        x: measured, ascending, [k], at least 3.
        means: losses there, nats per token, [k].
        covariance: of the means, [k, k], positive definite; what all of them share is of no account.
        errors: of the means in replicates, as uncertain as the covariance is, [B, k].
    """
    candidates = np.unique(np.concatenate([np.linspace(x[0], x[-1], _CANDIDATES), x]))
    measured = _Distances(x, candidates, covariance).to(means)
    worse = measured - measured.min()
    few = np.linspace(x[0], x[-1], _NULL_CANDIDATES)
    nulls = _Distances(x, few, covariance)
    flat = np.array([nulls.to(error) for error in errors[:_NULLS]])
    critical = np.quantile(flat - flat.min(axis=1, keepdims=True), 1 - _LEVEL, axis=0)
    excess = worse - np.interp(candidates, few, critical)
    kept = np.flatnonzero(excess <= 0)
    return _edge(candidates, excess, kept[0], -1), _edge(candidates, excess, kept[-1], 1)


def lowest_possible(x: np.ndarray, values: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """How low a convex curve can lie at most, nats per token, [B]: between the measured x too, where it may have a corner.

    Args:
        x: measured, ascending, [k], at least 3.
        values: at these x, with errors that bend the curve here and there, [B, k]; the convex curve nearest to them is taken.
        covariance: of the errors, [k, k], positive definite.
    """
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    z = (x - x[0]) / (x[-1] - x[0])
    bends = np.maximum(z[:, None] - z[1:-1], 0)
    free = np.column_stack([np.ones_like(z), z])
    # What level and slope explain is taken out first, as they may have either sign
    left = np.linalg.qr(whiten @ free)[0]
    target = values @ whiten.T
    target, basis = target - target @ left @ left.T, whiten @ bends - left @ (left.T @ (whiten @ bends))
    bent = np.array([nnls(basis, one)[0] for one in target]) @ bends.T
    level = np.linalg.lstsq(whiten @ free, whiten @ (values - bent).T, rcond=None)[0]
    curves = bent + (free @ level).T
    return _lowest_between(z, curves)


def _lowest_between(x: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """The lowest value, [B], that convex curves with these values at x, [B, k], may have between: where the neighbouring chords meet."""
    slopes = np.diff(curves, axis=1) / np.diff(x)
    lowest = curves.min(axis=1)
    for i in range(len(x) - 1):
        width = x[i + 1] - x[i]
        falls = slopes[:, i - 1] if i > 0 else np.full(len(curves), -np.inf)
        rises = slopes[:, i + 1] if i + 2 < len(x) else np.full(len(curves), np.inf)
        from_left, from_right = curves[:, i], curves[:, i + 1]
        if i == 0:
            here = from_right - rises * width  # the right chord alone
        elif i + 2 == len(x):
            here = from_left + falls * width
        else:
            bend = np.maximum(rises - falls, 1e-300)
            at = np.clip((from_left - from_right + rises * width) / bend, 0, width)
            here = from_left + falls * at
        lowest = np.minimum(lowest, np.where((falls < 0) & (rises > 0), here, lowest))
    return lowest


def _edge(candidates: np.ndarray, excess: np.ndarray, kept: int, step: int) -> float:
    """Where the excess becomes zero beyond the last candidate that is kept."""
    beyond = kept + step
    if not 0 <= beyond < len(candidates):
        return float(candidates[kept])
    share = -excess[kept] / (excess[beyond] - excess[kept])
    return float(candidates[kept] + share * (candidates[beyond] - candidates[kept]))


class _Distances:
    """How far measurements are from the convex curves with their minimum at each of some candidates."""

    def __init__(self, x: np.ndarray, candidates: np.ndarray, covariance: np.ndarray) -> None:
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        level = whiten.sum(axis=1)
        level /= np.linalg.norm(level)
        self.whiten = whiten - np.outer(level, level @ whiten)
        """[k, k]: to units of the noise, the level of the curve taken out."""
        self.hinges = [self.whiten @ _hinges(x, at) for at in candidates]

    def to(self, means: np.ndarray) -> np.ndarray:
        """Squared distances of means [k], in variances, [G]."""
        target = self.whiten @ means
        return np.array([nnls(hinges, target)[1] ** 2 for hinges in self.hinges])


def _hinges(x: np.ndarray, at: float) -> np.ndarray:
    """At each x, the hinges that rise to the left of knots up to `at` and to the right of knots from `at` on, [k, h]."""
    falling = [knot for knot in (*x[(x > x[0]) & (x < at)], at) if knot > x[0]]
    rising = [knot for knot in (at, *x[(x > at) & (x < x[-1])]) if knot < x[-1]]
    return np.column_stack([*(np.maximum(knot - x, 0) for knot in falling), *(np.maximum(x - knot, 0) for knot in rising)])
