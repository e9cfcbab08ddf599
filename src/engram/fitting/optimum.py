"""Where loss is lowest over rho, how much memory gains there, and how certain that is."""

import numpy as np

from engram.fitting.bootstrap import document_deviations, trial_errors, trial_rng
from engram.fitting.convex import lowest_possible, minimum_set
from engram.fitting.curves import Posterior
from engram.fitting.layout import Layout, document_parts, lay_out, without_outliers
from engram.fitting.margin import MARGIN, check_margin
from engram.fitting.near_best import Draws, near_best
from engram.fitting.noise import NoiseByRho, trial_noise
from engram.fitting.results import AllocationFit, Band, Interval, Observations
from engram.fitting.verdict import LEVEL, advantage, decide, too_few

FEWEST_RHOS = 4
"""With fewer rhos, every curve fits."""
_CONVEX_DRAWS = 400
"""Draws from which bounds for any convex curve are taken, at most."""
TAILS = (0.025, 0.975)
_NONE = Interval(float("nan"), float("nan"), float("nan"))
_NOISE_STEPS = 24
"""Number of values of the noise that the curves are averaged over."""
_SEED_PRIOR_DOF = 3
"""Seeds are few, so their common effect is assumed to be like the noise of a trial, with the weight of three seeds."""


def fit_allocation(observations: Observations, *, replicates: int = 2000, seed: int = 0, margin: float = MARGIN) -> AllocationFit:
    """Fit loss against rho.

    A trial far from all others of its rho and seed is left out, and the verdict says so (`layout.without_outliers`). Fits with the same
    `seed` draw the same documents (see `bootstrap`). With fewer than four rhos there is no curve: numbers are NaN, and the verdict says so.

    Args:
        observations: with x = rho.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        margin: by how much a rho may be worse than the best one to count as near it, nats per token, above 0.

    Raises UserError when arrays do not match or hold anything but finite numbers, or the margin is none.
    """
    check_margin(margin)
    layout = lay_out(observations)
    if len(layout.x) < FEWEST_RHOS:
        return _without_curve(layout)
    layout, left_out = without_outliers(layout)
    noise = trial_noise(layout)
    rng = trial_rng(layout, seed)
    deviations = document_deviations(layout, replicates, seed)
    parts = layout.to_means @ document_parts(layout.observations)
    document_covariance = parts @ parts.T
    variances = noise.draw(replicates, rng)
    covariance = document_covariance + layout.covariance(np.median(variances, axis=0))
    test_errors = deviations + trial_errors(layout, variances, rng)
    over_top, over_lowest = (advantage(layout, document_covariance, covariance, noise, test_errors, end) for end in (-1, 0))

    posterior = Posterior(layout, document_covariance, variances[:_NOISE_STEPS])
    curves, errors = posterior.draw(deviations, rng)
    grid = np.linspace(layout.x[0], layout.x[-1], curves.shape[1])
    fitted = posterior.mean_curve()
    rho, low = minimum(grid, curves)
    best, lowest = (float(value[0]) for value in minimum(grid, fitted[None]))
    at_best = curves[:, fitted.argmin()]
    rho_smooth = interval(best, rho)
    # What noise leaves of the means' covariance where there is none at all: far below any difference between two curves
    least = np.eye(len(layout.x)) * (1e-5 * max(float(np.ptp(layout.means)), 1e-9)) ** 2
    possible = minimum_set(layout.x, layout.means, covariance + least, test_errors)
    rho_star = Interval(best, min(possible[0], best), max(possible[1], best))
    # The measured mean, not the curve: the wall at rho = 1 is steep, and a misfit there would look like a gain. The lowest point of a drawn
    # curve is lower than the curve at any fixed rho, so each of the two is used for the bound on the side on which it errs
    top = layout.means[-1] - errors[:, -1]
    # A corner between two measured rhos may lie deeper than any of the forms
    values = layout.means - test_errors[:_CONVEX_DRAWS]
    deepest = lowest_possible(layout.x, values, covariance + least)
    gain = _outer(float(layout.means[-1]) - lowest, top - at_best, top - low)
    gain = _reaching(gain, high=values[:, -1] - deepest)
    if over_top.p >= LEVEL:
        gain = Interval(gain.estimate, min(gain.low, 0.0), gain.high)
    seeds = _seed_level(layout, noise, replicates, rng)
    loss_min = _reaching(_outer(lowest, low + seeds, at_best + seeds), low=deepest + seeds[: len(deepest)])
    cv_error = posterior.cv_errors()
    has_one = layout.x[-1] == 1  # a sweep has rho = 1 exactly or not at all
    return AllocationFit(
        form=posterior.chosen(),
        cv_error=cv_error,
        noise_sd=noise.sd,
        n_seeds=layout.n_seeds,
        rho_star=rho_star,
        near_best=near_best(Draws(grid, curves, low, layout.x, values, deepest), fitted, margin),
        rho_smooth=rho_smooth,
        loss_min=loss_min,
        gain=gain if has_one else _NONE,
        crossing=_crossing(grid, fitted, float(layout.means[-1]), best, curves, top) if has_one else _NONE,
        band=Band(grid, fitted, *np.quantile(curves, TAILS, axis=0)),
        verdict=decide(layout, noise, over_top, over_lowest, rho_star, gain, left_out),
    )


def interval(estimate: float, replicates: np.ndarray) -> Interval:
    """The middle 95 % of the replicates, extended if need be to include the estimate."""
    return _outer(estimate, replicates, replicates)


def _outer(estimate: float, for_low: np.ndarray, for_high: np.ndarray) -> Interval:
    low, high = float(np.quantile(for_low, TAILS[0])), float(np.quantile(for_high, TAILS[1]))
    return Interval(estimate, min(low, estimate), max(high, estimate))


def _reaching(interval: Interval, low: np.ndarray | None = None, high: np.ndarray | None = None) -> Interval:
    """An interval extended to the outer quantiles of further draws."""
    reaches_low = interval.low if low is None else min(interval.low, float(np.quantile(low, TAILS[0])))
    reaches_high = interval.high if high is None else max(interval.high, float(np.quantile(high, TAILS[1])))
    return Interval(interval.estimate, reaches_low, reaches_high)


def _seed_level(layout: Layout, noise: NoiseByRho, count: int, rng: np.random.Generator) -> np.ndarray:
    """How far the average seed may be from the average over all seeds, nats, [count]."""
    squares = float((layout.seed_means**2).sum()) + _SEED_PRIOR_DOF * noise.variance
    n_seeds = len(layout.seed_means)
    variance = squares / rng.chisquare(n_seeds - 1 + _SEED_PRIOR_DOF, count)
    level: np.ndarray = np.sqrt(variance / n_seeds) * rng.standard_normal(count)
    return level


def minimum(grid: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position and value, [B] each, of the lowest point of each curve [B, G], interpolated by a parabola."""
    best = curves.argmin(axis=1)
    rows = np.arange(len(curves))
    inner = np.clip(best, 1, len(grid) - 2)
    left, middle, right = curves[rows, inner - 1], curves[rows, inner], curves[rows, inner + 1]
    bend = left - 2 * middle + right
    inside = (bend > 0) & (best == inner)
    shift = np.where(inside, 0.5 * (left - right) / np.where(inside, bend, 1), 0.0)
    return grid[best] + shift * (grid[1] - grid[0]), curves[rows, best] - 0.25 * (left - right) * shift


def _crossing(grid: np.ndarray, fitted: np.ndarray, level: float, best: float, curves: np.ndarray, levels: np.ndarray) -> Interval:
    """Where the curve, left of its minimum, comes down to the level of rho = 1; replicates that never do count as below the lowest rho."""
    estimate = float(_comes_down(grid, fitted[None], np.array([level]))[0])
    if np.isnan(estimate) or best == grid[-1]:
        return _NONE
    return interval(estimate, np.nan_to_num(_comes_down(grid, curves, levels), nan=grid[0]))


def _comes_down(grid: np.ndarray, curves: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The largest x left of each curve's lowest point where the curve reaches its level, [B]; NaN where it never does."""
    above = (curves >= levels[:, None]) & (np.arange(len(grid)) < curves.argmin(axis=1)[:, None])
    rows = np.arange(len(curves))
    last = len(grid) - 1 - above[:, ::-1].argmax(axis=1)
    found = above.any(axis=1)
    last = np.where(found, last, 0)
    here, after = curves[rows, last], curves[rows, last + 1]
    step = np.where(found, here - after, 1)
    place = grid[last] + (here - levels) / np.where(step > 0, step, 1) * (grid[1] - grid[0])
    return np.where(found, np.minimum(place, grid[last + 1 - (last == len(grid) - 1)]), np.nan)


def _without_curve(layout: Layout) -> AllocationFit:
    x = ", ".join(f"{value:g}" for value in layout.x)
    verdict = too_few(f"Too few points: rho = {x} measured; a minimum needs at least {FEWEST_RHOS} different rhos, one of them 1.")
    nan = float("nan")
    return AllocationFit("none", {}, nan, layout.n_seeds, _NONE, None, _NONE, _NONE, _NONE, _NONE, None, verdict)
