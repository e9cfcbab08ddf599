"""Loss against memory slots on a fixed backbone (paper, 3.2): log-linear, or a power law with an offset.

Both are linear once the exponent is fixed, so a fine grid over the exponent with a direct solve at each point is a multi-start that cannot
miss the best basin; the best point is then polished. The Huber losses of the trials are summed, not averaged: the gradients of a mean are
so small that an optimiser stops early (Besiroglu et al. 2024 on the fits of Hoffmann et al. 2022).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import least_squares

from engram.errors import UserError
from engram.fitting.bootstrap import resample_documents, trial_rng
from engram.fitting.layout import ENOUGH_DOF, Layout, lay_out, noise_under, smooth_residual
from engram.fitting.optimum import interval
from engram.fitting.results import Band, Interval, MemoryFit, Observations

BEYOND = 10
"""How far the curve is drawn, as a multiple of the largest number of slots measured."""
_EXPONENTS = np.geomspace(0.02, 3, 120)
_BAND_POINTS = 121
_HUBER = 1.345
"""Residuals beyond this many standard deviations count linearly: 95 % efficient for Gaussian noise (Huber 1981)."""
_ROUNDS = 30
"""Rounds of reweighting."""
_TAILS = [0.025, 0.975]

Form = Literal["log-linear", "power-law"]


def fit_memory(observations: Observations, *, replicates: int = 1000, seed: int = 0) -> MemoryFit:
    """Fit both laws to trials with x = slots.

    Raises UserError with fewer than three different numbers of slots, numbers that are not above zero, or arrays that do not match.
    """
    layout = lay_out(observations)
    if len(layout.x) < 3 or layout.x[0] <= 0:
        raise UserError(
            f"a memory law needs at least three different numbers of slots above 0; there are {', '.join(f'{x:g}' for x in layout.x)}"
        )
    data = _Data.of(layout)
    fits: dict[Form, _Fit] = {"log-linear": _fit(data, None), "power-law": _fit(data, _EXPONENTS)}
    cv_error = {form: error for form in fits if (error := _cv_error(layout, form)) is not None}
    form: Form = min(fits, key=lambda name: cv_error.get(name, float("inf")))
    losses = _replicate_losses(layout, replicates, seed)
    draws = {name: _refit(data, fits[name], losses) for name in fits}
    parameters = {name: _parameters(fits[name], *draws[name], data.unit) for name in fits}
    x = np.geomspace(layout.x[0], layout.x[-1] * BEYOND, _BAND_POINTS)
    curves = _predict(*draws[form], x / data.unit)
    center = _predict(np.array([fits[form].exponent]), fits[form].coefficients[None], x / data.unit)[0]
    low, high = np.quantile(curves, _TAILS, axis=0)
    return MemoryFit(
        form=form,
        cv_error={str(name): error for name, error in cv_error.items()},
        parameters={str(name): values for name, values in parameters.items()},
        band=Band(x, center, np.minimum(low, center), np.maximum(high, center)),
        measured=(float(layout.x[0]), float(layout.x[-1])),
        text=_text(form, parameters, cv_error),
    )


@dataclass(frozen=True)
class _Data:
    x: np.ndarray
    """Slots of every trial in units of `unit`, [n]."""
    loss: np.ndarray
    """[n]"""
    seeds: np.ndarray
    """Columns for the effects of seeds, which add up to zero, [n, S - 1]."""
    unit: float
    """Geometric mean of the slots: powers of numbers around 1 are well conditioned."""

    @staticmethod
    def of(layout: Layout) -> "_Data":
        obs = layout.observations
        whose = np.unique(obs.seed, return_inverse=True)[1]
        coded = np.eye(whose.max() + 1)[whose]
        seeds = coded[:, :-1] - coded[:, -1:] if len(layout.seed_means) > 1 else np.empty((len(obs.x), 0))
        unit = float(np.exp(np.log(layout.x).mean()))
        return _Data(obs.x / unit, obs.loss, seeds, unit)

    def without(self, x: float) -> "_Data":
        keep = ~np.isclose(self.x, x / self.unit)
        return _Data(self.x[keep], self.loss[keep], self.seeds[keep], self.unit)

    def design(self, exponents: np.ndarray | None) -> np.ndarray:
        """[E, n, 2 + S - 1]: constant, slope, seeds; the slope's column is a decimal logarithm, or a power for each exponent."""
        column = np.log10(self.x)[None] if exponents is None else self.x ** -exponents[:, None]
        return np.concatenate(
            [np.stack([np.ones_like(column), column], axis=-1), np.broadcast_to(self.seeds, (*column.shape, self.seeds.shape[1]))], axis=-1
        )


@dataclass(frozen=True)
class _Fit:
    exponent: float
    """NaN: log-linear"""
    coefficients: np.ndarray
    """Constant and slope in units of `_Data.unit`, [2]."""
    weights: np.ndarray
    """Final weights of the trials, below 1 for those far off, [n]."""


def _solve(design: np.ndarray, loss: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares for every exponent, [E, p], from designs [E, n, p] and weights [E, n]; the smallest if several fit."""
    root = np.sqrt(weights)
    solution: np.ndarray = (np.linalg.pinv(design * root[..., None], rcond=1e-12) @ (root * loss)[..., None])[..., 0]
    return solution


def _fit(data: _Data, exponents: np.ndarray | None) -> _Fit:
    """Least summed Huber loss. The width of its quadratic part is the spread of the residuals by their median."""
    design = data.design(exponents)
    weights = np.ones(design.shape[:2])
    width = np.full((len(design), 1), np.inf)
    for _ in range(_ROUNDS):
        solution = _solve(design, data.loss, weights)
        if exponents is not None:
            solution = _falling(solution, data, weights)
        residual = data.loss - (design @ solution[..., None])[..., 0]
        width = np.maximum(_HUBER * 1.4826 * np.median(np.abs(residual), axis=1, keepdims=True), 1e-9 * (1 + np.ptp(data.loss)))
        # One width for all exponents, so that their losses can be compared
        width = np.full_like(width, width.min())
        weights = np.minimum(1, width / np.maximum(np.abs(residual), 1e-300))
    cost = _huber(residual, width).sum(axis=1)
    best = int(cost.argmin())
    if exponents is None:
        return _Fit(float("nan"), solution[0, :2], weights[0])
    return _polish(data, float(exponents[best]), solution[best], float(width[0, 0]), weights[best])


def _falling(solution: np.ndarray, data: _Data, weights: np.ndarray) -> np.ndarray:
    """Replace a power law with a negative scale by the best constant: more slots never hurt in a power law."""
    rising = solution[:, 1] < 0
    if not rising.any():
        return solution
    flat = np.column_stack([np.ones(len(data.x)), data.seeds])
    flat = np.broadcast_to(flat, (int(rising.sum()), *flat.shape))
    constant = _solve(flat, data.loss, weights[rising])
    solution = solution.copy()
    solution[rising] = np.insert(constant, 1, 0.0, axis=1)
    return solution


def _huber(residual: np.ndarray, width: np.ndarray) -> np.ndarray:
    size = np.abs(residual)
    return np.where(size <= width, 0.5 * size**2, width * (size - 0.5 * width))


def _polish(data: _Data, exponent: float, solution: np.ndarray, width: float, weights: np.ndarray) -> _Fit:
    """From the best of the grid to the optimum between its points."""

    def residual(p: np.ndarray) -> np.ndarray:
        # The offset is the curve's value at the unit, which the data determine, not the asymptote, which they hardly do
        fall: np.ndarray = p[0] + p[1] * (data.x ** -p[2] - 1) + data.seeds @ p[3:] - data.loss
        return fall

    start = np.array([solution[0] + solution[1], max(solution[1], 0.0), exponent, *solution[2:]])
    bounds = np.full(len(start), np.inf)
    lower, upper = -bounds, bounds.copy()
    lower[1:3], upper[2] = (0.0, _EXPONENTS[0]), _EXPONENTS[-1]
    start[2] = np.clip(start[2], lower[2] * (1 + 1e-9), upper[2] * (1 - 1e-9))
    found = least_squares(
        residual, start, bounds=(lower, upper), loss="huber", f_scale=width, x_scale="jac", xtol=1e-14, ftol=1e-14, gtol=1e-14
    )
    p = found.x if found.cost <= 1.0 * _huber(residual(start), np.array(width)).sum() else start
    return _Fit(float(p[2]), np.array([p[0] - p[1], p[1]]), weights)


def _cv_error(layout: Layout, form: Form) -> float | None:
    """Root mean square error of leaving out one number of slots; None if the rest does not determine the form."""
    if form == "power-law" and len(layout.x) < 4:
        return None
    data = _Data.of(layout)
    squares = []
    for x, mean in zip(layout.x, layout.means, strict=True):
        fit = _fit(data.without(x), _EXPONENTS if form == "power-law" else None)
        squares.append((_predict(np.array([fit.exponent]), fit.coefficients[None], np.array([x / data.unit]))[0, 0] - mean) ** 2)
    return float(np.sqrt(np.mean(squares)))


def _predict(exponents: np.ndarray, coefficients: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Curves [B, G] with constants and slopes [B, 2] at x [G] in units; exponents [B], NaN for log-linear."""
    shape = np.log10(x)[None] if np.isnan(exponents[0]) else x ** -exponents[:, None]
    curves: np.ndarray = coefficients[:, :1] + coefficients[:, 1:2] * shape
    return curves


def _replicate_losses(layout: Layout, count: int, seed: int) -> np.ndarray:
    """Losses of the trials on resampled documents and with other noise, [B, n]."""
    obs = layout.observations
    rng = trial_rng(layout, seed)
    if layout.dof >= ENOUGH_DOF:
        noise = noise_under(layout, layout.residual, layout.dof)
    else:
        logs = np.log(layout.x / layout.x[0])
        noise = noise_under(layout, *smooth_residual(layout, np.column_stack([np.ones_like(logs), logs, logs**2])[:, : len(logs) - 1]))
    own = np.sqrt(noise.draw(count, rng))[:, None] * rng.standard_normal((count, len(obs.x)))
    losses: np.ndarray = resample_documents(obs.loss_sum, obs.n_tokens, count, seed) + own
    return losses


def _refit(data: _Data, fit: _Fit, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponents [B] and coefficients [B, 2] of replicates [B, n]; trials have the same weights as in the fit itself."""
    exponents = None if np.isnan(fit.exponent) else _EXPONENTS
    design = data.design(exponents)
    root = np.sqrt(fit.weights)
    weighted = design * root[:, None]
    inverse = np.linalg.pinv(weighted, rcond=1e-12)
    target = losses * root
    solutions = np.einsum("epn,bn->ebp", inverse, target)
    costs = ((target - np.einsum("enp,ebp->ebn", weighted, solutions)) ** 2).sum(axis=-1)
    rows = np.arange(len(losses))
    if exponents is None:
        return np.full(len(losses), np.nan), solutions[0, :, :2]
    costs = np.where(solutions[..., 1] < 0, np.inf, costs)
    best = costs.argmin(axis=0)
    coefficients = solutions[best, rows, :2]
    flat = ~np.isfinite(costs.min(axis=0))
    level = (target @ root) / (root @ root)
    coefficients[flat] = np.column_stack([level[flat], np.zeros(flat.sum())])
    return exponents[best], coefficients


def _parameters(fit: _Fit, exponents: np.ndarray, coefficients: np.ndarray, unit: float) -> dict[str, Interval]:
    """In slots, not in units."""
    if np.isnan(fit.exponent):
        log = np.log10(unit)
        intercept = interval(float(fit.coefficients[0] - fit.coefficients[1] * log), coefficients[:, 0] - coefficients[:, 1] * log)
        return {"intercept": intercept, "slope": interval(float(fit.coefficients[1]), coefficients[:, 1])}
    return {
        "offset": interval(float(fit.coefficients[0]), coefficients[:, 0]),
        "scale": interval(float(fit.coefficients[1] * unit**fit.exponent), coefficients[:, 1] * unit**exponents),
        "exponent": interval(fit.exponent, exponents),
    }


def _text(form: Form, parameters: dict[Form, dict[str, Interval]], cv_error: dict[Form, float]) -> str:
    if form == "log-linear":
        slope = parameters[form]["slope"]
        text = f"Ten times the slots change loss by {slope.estimate:+.4f} nats ({slope.low:+.4f} to {slope.high:+.4f}), log-linear."
    else:
        exponent, offset = parameters[form]["exponent"], parameters[form]["offset"]
        text = (
            f"Loss falls as slots to the power -{exponent.estimate:.2f} ({exponent.low:.2f} to {exponent.high:.2f}) "
            f"towards {offset.estimate:.3f} nats ({offset.low:.3f} to {offset.high:.3f})."
        )
    if len(cv_error) < 2:
        return f"{text} A power law needs at least four numbers of slots to be judged."
    other: Form = "power-law" if form == "log-linear" else "log-linear"
    return f"{text} Leaving out one number of slots errs by {cv_error[form]:.4f} nats, {cv_error[other]:.4f} with {other}."
