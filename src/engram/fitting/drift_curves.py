"""Curves over rho at all budgets of a model at once, drawn from what the measurements leave open: forms that blend into each other.

They are the forms of `curves`, and their coefficients have a part that all budgets share, one that grows with the logarithm of the budget,
and one of each budget's own. Such curves may tilt, rise, flatten, or keep a wall where it is. All is Gaussian given the form, the scale,
the share that changes and the noise, which are averaged over by their marginal likelihood; draws follow Matheron's rule, as in `curves`.
"""

from dataclasses import dataclass

import numpy as np

from engram.fitting.curves import GRID_POINTS, forms_for
from engram.fitting.drift_layout import Stack
from engram.fitting.optimum import minimum

WOBBLE = 0.3
"""Scale of what is each budget's own, as a share of the change over half the range of budgets."""
_SCALES = (0.5, 1.0, 2.0, 4.0)
"""Scales of coefficients, as multiples of the range of the measured means."""
_CHANGES = (0.03, 0.1, 0.3, 0.8)
"""Scales of their change over half the range of budgets, as shares of that."""
_NOISES = (0.7, 1.0, 1.5)
"""Noise that trials may have, as multiples of the estimate."""
_NEGLIGIBLE = 1e-5
"""Probability, as a share of the largest, below which a combination is left out."""


@dataclass(frozen=True)
class Errors:
    """Errors of the means in replicates, nats per token."""

    documents: np.ndarray
    """[R, n]"""
    trials: np.ndarray
    """With noise of the estimated size, [R, n]."""


@dataclass(frozen=True)
class Draws:
    """Curves that could have made the measurements."""

    lowest: np.ndarray
    """rho at which each curve is lowest, [R, Z]."""
    evidence: float
    """Logarithm of the probability of the measurements, up to a constant that all families share."""


class Problem:
    """The measurements, and the budgets for which curves are wanted."""

    def __init__(self, stack: Stack, further: np.ndarray) -> None:
        """`further`: budgets beside the measured ones, log10 FLOPs, [Z - B]."""
        centre, half = (stack.z[0] + stack.z[-1]) / 2, (stack.z[-1] - stack.z[0]) / 2
        self.stack = stack
        self.at = (stack.z - centre) / half
        """Measured budgets on a logarithmic scale of -1 to 1, [B]."""
        self.wanted = (np.concatenate([stack.z, further]) - centre) / half
        """Those whose curves are drawn on the same scale, first the measured ones, [Z]."""
        self.height = max(float(np.mean([np.ptp(layout.means) for layout in stack.layouts])), 1e-9)
        """What coefficients are measured in, nats per token."""
        self.unit = (stack.x - stack.x[0]) / (stack.x[-1] - stack.x[0])
        """The distinct rhos as shares of the measured range, [k]."""
        self.grid = np.linspace(0, 1, GRID_POINTS)
        self.same = stack.budget[:, None] == stack.budget
        self._levels = np.eye(len(stack.z))[stack.budget]
        self._starts = np.searchsorted(stack.budget, np.arange(len(stack.z)))

    def likelihood(self, curves: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
        """Precision of the measurements with the levels of all budgets taken out, [..., n, n], and log of the norm of their density, [...].

        `curves` is the covariance of the curves at the points, [..., n, n], `noise` a factor of the trials' standard deviation.
        """
        s = self.stack
        errors = s.from_documents + noise**2 * s.from_trials + np.eye(len(s.means)) * (1e-5 * self.height) ** 2
        total = curves + errors
        precision = np.linalg.inv(total)
        with_levels = precision @ self._levels
        inner = self._levels.T @ with_levels
        contrast = precision - with_levels @ np.linalg.solve(inner, np.swapaxes(with_levels, -1, -2))
        return contrast, -0.5 * (np.linalg.slogdet(total)[1] + np.linalg.slogdet(inner)[1])

    def noises(self) -> list[tuple[float, float]]:
        """Factors that the noise may have, and the logarithm of the probability that the residuals give them."""
        factor = np.array(_NOISES) ** 2
        log = -0.5 * self.stack.dof * (np.log(factor) + 1 / factor)
        log -= log.max()
        log -= np.log(np.exp(log).sum())
        return [(noise, float(p)) for noise, p in zip(_NOISES, log, strict=True) if p > np.log(0.01)]

    def alike(self, change: float) -> np.ndarray:
        """Covariance of one coefficient between wanted and measured budgets, [Z, B], if it is 1 at the middle."""
        own = (change * WOBBLE) ** 2 * np.eye(len(self.wanted), len(self.at))
        covariance: np.ndarray = 1 + change**2 * self.wanted[:, None] * self.at + own
        return covariance

    def between_points(self, change: float) -> np.ndarray:
        """The same between measured points, [n, n]."""
        z = self.at[self.stack.budget]
        covariance: np.ndarray = 1 + change**2 * z[:, None] * z + (change * WOBBLE) ** 2 * self.same
        return covariance

    def free(self, count: int, width: int, change: float, rng: np.random.Generator) -> np.ndarray:
        """Coefficients before there are measurements, [count, Z, width]."""
        drawn = rng.standard_normal((count, len(self.wanted) + 2, width))
        coefficients: np.ndarray = drawn[:, :1] + change * self.wanted[:, None] * drawn[:, 1:2] + change * WOBBLE * drawn[:, 2:]
        return coefficients

    def pull(self, basis: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """What weights of the points [R, n] do to the coefficients of each budget, [R, B, r]; `basis` is [n, r]."""
        pulled: np.ndarray = np.add.reduceat(weights[:, :, None] * basis, self._starts, axis=1)
        return pulled

    def lowest(self, curves: np.ndarray) -> np.ndarray:
        """rho of the lowest point of each curve on the grid [R, Z, G], [R, Z]."""
        x = self.stack.x
        place = minimum(self.grid, curves.reshape(-1, len(self.grid)))[0].reshape(curves.shape[:-1])
        rho: np.ndarray = x[0] + np.clip(place, 0, 1) * (x[-1] - x[0])
        return rho


def blended(problem: Problem, errors: Errors, rng: np.random.Generator) -> Draws:
    """Draw one curve for each replicate and wanted budget."""
    s = problem.stack
    forms = forms_for(tuple(s.x.tolist()))
    points = forms.points[:, s.place]
    shapes = points @ points.transpose(0, 2, 1)
    alike = np.array([problem.between_points(change) for change in _CHANGES])
    scales = np.array(_SCALES) * problem.height
    sizes = (len(shapes), len(scales), len(alike))
    prior = forms.prior - np.log(np.exp(forms.prior).sum() * len(scales) * len(alike))

    def weigh(cells: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
        form, scale, change = cells
        contrast, norm = problem.likelihood((scales[scale] ** 2)[:, None, None] * shapes[form] * alike[change], noise)
        return contrast, norm - 0.5 * (contrast @ s.means @ s.means) + prior[form]

    cells = np.array(np.unravel_index(np.arange(np.prod(sizes)), sizes))
    likely = weigh(cells, 1.0)[1]
    cells = cells[:, likely > likely.max() + np.log(_NEGLIGIBLE)]
    noises = problem.noises()
    weighed = [weigh(cells, noise) for noise, _ in noises]
    contrasts = np.concatenate([contrast for contrast, _ in weighed])
    logs = np.concatenate([log + noise_log for (_, log), (_, noise_log) in zip(weighed, noises, strict=True)])
    evidence = log_sum(logs)
    count = len(errors.documents)
    weight = np.exp(logs - evidence)
    chosen = rng.choice(len(logs), count, p=weight / weight.sum())
    lowest = np.empty((count, len(problem.wanted)))
    for one in np.unique(chosen):
        mine = np.flatnonzero(chosen == one)
        form, scale, change = cells[:, one % cells.shape[1]]
        noise = noises[one // cells.shape[1]][0]
        size, basis = scales[scale], points[form]
        coefficients = size * problem.free(len(mine), basis.shape[1], _CHANGES[change], rng)
        expected = np.einsum("nr,mnr->mn", basis, coefficients[:, s.budget])
        missing = s.means - errors.documents[mine] - noise * errors.trials[mine] - expected
        coefficients += size**2 * (problem.alike(_CHANGES[change]) @ problem.pull(basis, missing @ contrasts[one]))
        lowest[mine] = problem.lowest(coefficients @ forms.grid[form].T)
    return Draws(lowest, evidence)


def log_sum(logs: np.ndarray) -> float:
    """Logarithm of the sum of what these are logarithms of."""
    return float(np.log(np.exp(logs - logs.max()).sum()) + logs.max())
