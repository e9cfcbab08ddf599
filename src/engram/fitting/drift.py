"""Whether the best rho moves with the budget: all budgets of one size and variant fitted together.

Budgets share the shape of their curve more than its lowest point, so a joint fit sees movements that separate fits leave in the dark. The
curves of two families (`drift_curves`, `drift_moving`) are drawn for all budgets at once; the slope is that of the straight line through
their lowest points. Two tests need no form of the curve: whether it changes with the budget at all, and whether it tilts.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special

from engram.errors import UserError
from engram.fitting.bootstrap import document_deviations, trial_rng
from engram.fitting.drift_curves import Draws, Errors, Problem, blended
from engram.fitting.drift_layout import Stack, stack
from engram.fitting.drift_moving import moving
from engram.fitting.layout import lay_out, without_outliers
from engram.fitting.optimum import TAILS
from engram.fitting.results import AllocationFit, Drift, Interval, Line, Observations

_LEVEL = 0.05
_LEAST_SHARE = 0.2
"""Of the draws, for a family that the measurements favour less: no curve *is* of one, so neither is ruled out by its misfit."""
_SLOPE_TAILS = (0.04, 0.96)
"""Quantiles of the drawn slopes where seeds show the noise: with 0.025 and 0.975 the interval covered over 99 % of made-up slopes, since
the forms leave more open than any one curve does."""
_LINE_POINTS = 13
_BEYOND = 1.0
"""Decades by which the line goes on beyond the largest budget."""
_SLOPES = 41
_POWER = 0.8
_TILT_DOF = 6
"""Weight, in degrees of freedom, of what the noise of single trials makes of the tilt; the spread of the seeds' tilts has its own."""
_EFFECTIVE = 0.5
"""Degrees of freedom of a contrast, as a share of all: it rests on the trials of a few rhos and budgets, whose variances differ."""


def fit_drift(
    budgets: Sequence[float],
    curves: Sequence[Observations],
    fits: Sequence[AllocationFit],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Drift | None:
    """Fit loss against rho at all budgets at once; None with fewer than two budgets that have a curve.

    Args:
        budgets: FLOPs, each once.
        curves: observations of each, with x = rho. Budgets should have the same documents; if not, their samples count as independent.
        fits: what `fit_allocation` makes of each; of it, the convex interval of rho_star is used.
        replicates: of documents and noise.
        seed: of these.

    Raises UserError when a budget comes twice.
    """
    usable = sorted(
        ((budget, curve, fit.rho_star) for budget, curve, fit in zip(budgets, curves, fits, strict=True) if fit.band is not None),
        key=lambda one: one[0],
    )
    if len(usable) < 2:
        return None
    if len({budget for budget, _, _ in usable}) < len(usable):
        raise UserError("a drift needs every budget once")
    layouts = [without_outliers(lay_out(curve))[0] for _, curve, _ in usable]
    joint = stack([budget for budget, _, _ in usable], layouts)
    rng = trial_rng(layouts[0], seed)
    root = np.linalg.cholesky(joint.from_trials + 1e-12 * np.trace(joint.from_trials) * np.eye(len(joint.means)) + 1e-24)
    errors = Errors(
        np.hstack([document_deviations(layout, replicates, seed) for layout in layouts]),
        rng.standard_normal((replicates, len(joint.means))) @ root.T,
    )
    p_change = _change(joint, errors, rng)
    tilt, p_tilt = _tilt(joint)
    further = np.linspace(joint.z[0], joint.z[-1] + _BEYOND, _LINE_POINTS)
    problem = Problem(joint, further)
    lowest = _mixed([family(problem, errors, rng) for family in (blended, moving)], rng)
    low, high = _anywhere_in_end_cells(joint, lowest)
    centred = joint.z - joint.z.mean()
    to_slope = centred / (centred @ centred)
    n_budgets, rising = len(joint.z), to_slope > 0
    tails = _SLOPE_TAILS if joint.by_seeds else TAILS
    slope = Interval(
        float(np.median(lowest[:, :n_budgets] @ to_slope)),
        float(np.quantile(np.where(rising, low[:, :n_budgets], high[:, :n_budgets]) @ to_slope, tails[0])),
        float(np.quantile(np.where(rising, high[:, :n_budgets], low[:, :n_budgets]) @ to_slope, tails[1])),
    )
    band = _line(joint, np.concatenate([joint.z, further]), lowest, low, high, slope, [star for _, _, star in usable])
    return describe(slope, p_change, tilt, p_tilt, band)


def describe(slope: Interval, p_change: float, tilt: Interval, p_tilt: float, band: Line | None) -> Drift:
    """The drift with its words."""
    moves: Literal["up", "down", "not shown"] = "not shown"
    size = f"{slope.estimate:+.2f} ({slope.low:+.2f} to {slope.high:+.2f}) for ten times the budget"
    if slope.low > 0 and p_change < _LEVEL:
        moves, text = "up", f"The best rho moves up by {size}."
    elif slope.high < 0 and p_change < _LEVEL:
        moves, text = "down", f"The best rho moves down by {size}."
    else:
        # With 80 % power: the interval's half-width stands for 1.96 standard errors
        seen = max(slope.high - slope.estimate, slope.estimate - slope.low) * (1 + special.ndtri(_POWER) / special.ndtri(TAILS[1]))
        text = f"No movement of the best rho is shown: {size}; one of more than {seen:.2f} would probably have been seen."
    leaning = f"{tilt.estimate:+.3f} nats ({tilt.low:+.3f} to {tilt.high:+.3f}), p = {p_tilt:.2g}"
    if p_tilt < _LEVEL:
        text += f" The curve tilts towards {'experts' if tilt.estimate < 0 else 'memory'}: its slope over rho changes by {leaning}."
    else:
        text += f" No tilt of the curve is shown: its slope over rho changes by {leaning}."
    return Drift(slope, moves, p_change, tilt, p_tilt, text, band)


def _contrasts(joint: Stack, regressors: np.ndarray) -> np.ndarray:
    """Weights of the points that give the coefficient of each regressor [m, n] beside levels of budgets and effects of rhos, [m, n]."""
    design = np.hstack([np.eye(len(joint.z))[joint.budget], np.eye(len(joint.x))[joint.place]])
    left = regressors - regressors @ design @ np.linalg.pinv(design)
    squares = (left**2).sum(axis=1)
    kept = squares > 1e-9 * (regressors**2).sum(axis=1)
    weights: np.ndarray = left[kept] / squares[kept, None]
    return weights


def _change(joint: Stack, errors: Errors, rng: np.random.Generator) -> float:
    """How probable it is that the curve appears to change with the budget this much if all budgets have one curve.

    Of all ways to divide the rhos into lower and higher ones, and of the straight tilt, the trend of the difference over budgets that
    stands out most is taken, in standard errors.
    """
    z = (joint.z - joint.z.mean())[joint.budget]
    steps = [z * (joint.place >= first) for first in range(1, len(joint.x))]
    weights = _contrasts(joint, np.array([*steps, z * joint.rho]))
    if not len(weights):
        return 1.0
    trials = (weights @ joint.from_trials * weights).sum(axis=1)
    se = np.sqrt(np.maximum(trials + (weights @ joint.from_documents * weights).sum(axis=1), 0)) + 1e-12 * np.ptp(joint.means) + 1e-300
    dof = max(_EFFECTIVE * joint.dof, 1)
    sizes = np.sqrt(dof / rng.chisquare(dof, len(errors.trials)))[:, None]
    null = np.abs((errors.documents + sizes * errors.trials) @ weights.T / se).max(axis=1)
    seen = np.abs(weights @ joint.means / se).max()
    return float((1 + (null >= seen).sum()) / (1 + len(null)))


def _tilt(joint: Stack) -> tuple[Interval, float]:
    """Change of the slope of loss over rho per decade, and the two-sided probability of one as large by chance."""
    weights = _contrasts(joint, ((joint.z - joint.z.mean())[joint.budget] * joint.rho)[None])
    if not len(weights):
        return Interval(*[float("nan")] * 3), 1.0
    weight = weights[0]
    tilt, of_seeds = float(weight @ joint.means), joint.of_seeds(weight)
    from_trials, from_documents = float(weight @ joint.from_trials @ weight), float(weight @ joint.from_documents @ weight)
    # Seeds may lean by themselves, all rhos together, which the noise of single trials does not show; but there are few
    own = float(of_seeds.var(ddof=1)) / len(of_seeds) if len(of_seeds) > 1 else 0.0
    of_own = max(len(of_seeds) - 1, 0)
    from_trials = (_TILT_DOF * from_trials + of_own * own) / (_TILT_DOF + of_own)
    variance = from_trials + from_documents + 1e-300
    # Welch and Satterthwaite: documents are many, trials few
    dof = min((_TILT_DOF + of_own) * (variance / (from_trials + 1e-300)) ** 2, 1e6)
    reach = float(special.stdtrit(dof, TAILS[1])) * variance**0.5
    return Interval(tilt, tilt - reach, tilt + reach), float(2 * special.stdtr(dof, -abs(tilt) / variance**0.5))


def _mixed(families: Sequence[Draws], rng: np.random.Generator) -> np.ndarray:
    """Draws of both families, as often as the measurements favour them, but none seldom, [R, Z]."""
    first, second = families
    share = 1 / (1 + np.exp(np.clip(second.evidence - first.evidence, -50, 50)))
    from_first = rng.random(len(first.lowest)) < np.clip(share, _LEAST_SHARE, 1 - _LEAST_SHARE)
    return np.where(from_first[:, None], first.lowest, second.lowest)


def _anywhere_in_end_cells(joint: Stack, lowest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest place that a drawn minimum stands for, [R, Z] each.

    Between an end and the rho next to it nothing was measured, and beyond it nothing at all: how steep a curve is there can't be told,
    however many seeds there are, nor where in between it is lowest.
    """
    inner = np.array([[layout.x[1], layout.x[-2]] for layout in joint.layouts])
    first = np.append(inner[:, 0], np.full(lowest.shape[1] - len(inner), joint.x[1]))
    last = np.append(inner[:, 1], np.full(lowest.shape[1] - len(inner), joint.x[-2]))
    low, high = np.where(lowest > last, last, lowest), np.where(lowest < first, first, lowest)
    return np.where(lowest < first, joint.x[0], low), np.where(lowest > last, joint.x[-1], high)


def _line(
    joint: Stack, z: np.ndarray, lowest: np.ndarray, low: np.ndarray, high: np.ndarray, slope: Interval, convex: Sequence[Interval]
) -> Line:
    """The drawn lowest points at `z`, and every straight line of a possible slope through the convex intervals of all budgets."""
    lows, highs = np.quantile(low, TAILS[0], axis=0), np.quantile(high, TAILS[1], axis=0)
    for tried in np.linspace(slope.low, slope.high, _SLOPES):
        least = max(star.low - tried * at for star, at in zip(convex, joint.z, strict=True))
        most = min(star.high - tried * at for star, at in zip(convex, joint.z, strict=True))
        if least <= most:
            lows, highs = np.minimum(lows, least + tried * z), np.maximum(highs, most + tried * z)
    order = np.unique(z, return_index=True)[1]
    lows, highs = (np.clip(bound, joint.x[0], joint.x[-1])[order] for bound in (lows, highs))
    return Line(10.0 ** z[order], np.median(lowest, axis=0)[order], lows, highs)
