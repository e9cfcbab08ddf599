"""The noise of single trials, which may differ between rhos: how large it is at each, and how surely that is known.

At every x the trials' variance is drawn around a common one, and how far variances scatter is itself unknown: few seeds show little of it,
so each x borrows from all, and takes back what its own seeds say (Smyth 2004, whose prior is this one with fixed constants). With one seed
nothing tells the xs apart; the scatter is then that of the prior, and every interval is as wide as that makes it.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from engram.fitting.layout import ENOUGH_DOF, Layout, document_parts, smooth_residual

_SCATTERS = np.array([3.0, 6.0, 15.0, 60.0])
"""Degrees of freedom that the common variance is worth at each x: the fewer, the further the variances scatter."""
_SCATTER_PRIOR = np.array([0.25, 0.25, 0.25, 0.25])
_END_SCATTER = 1.5
"""The same at the two ends, where a model lacks one of its parts: the common variance says little there."""
_END_FACTOR = 1.5
"""Factor of the common variance that trials at the ends are expected to have."""
_COMMON_STEPS = 81
"""Common variances that are tried, over a factor of `_COMMON_RANGE` to both sides of the pooled one."""
_COMMON_RANGE = 100.0


@dataclass(frozen=True)
class NoiseByRho:
    """Noise of one trial around its curve, after removing the effect of its seed."""

    variance: float
    """Of all trials together, nats^2."""
    from_documents: float
    """Part of it due to document sampling, which comes with the documents and must not be counted twice."""
    dof: int
    """Degrees of freedom of `variance`."""
    squares: np.ndarray
    """Squared residuals at each x, summed, nats^2, [k]; 0 where nothing shows them."""
    dofs: np.ndarray
    """Degrees of freedom of `squares`, [k]."""

    @property
    def sd(self) -> float:
        """nats"""
        return self.variance**0.5

    def end_dof(self, end: int) -> float:
        """Degrees of freedom behind the noise at the first (0) or the last (-1) x."""
        return _END_SCATTER + float(self.dofs[end])

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Variances that trials may have at each x beyond that of their documents, nats^2, [count, k]."""
        common, scatter = self._common(count, rng)
        degrees = np.repeat(scatter[:, None], len(self.dofs), axis=1)
        degrees[:, [0, -1]] = _END_SCATTER
        expected = np.repeat(common[:, None], len(self.dofs), axis=1)
        expected[:, [0, -1]] *= _END_FACTOR
        variances = (degrees * expected + self.squares) / rng.chisquare(degrees + self.dofs)
        own: np.ndarray = np.maximum(variances - self.from_documents, 0)
        return own

    def _common(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Common variances and scatters, [count] each, as often as the residuals make them likely."""
        if not self.dofs[1:-1].any():
            return self.variance * self.dof / rng.chisquare(self.dof, count), rng.choice(_SCATTERS, count, p=_SCATTER_PRIOR)
        steps = np.geomspace(1 / _COMMON_RANGE, _COMMON_RANGE, _COMMON_STEPS) * max(self.variance, 1e-300)
        shown = self.dofs > 0
        shown[[0, -1]] = False
        dofs, squares = self.dofs[shown], self.squares[shown]
        scatter, common = _SCATTERS[:, None, None], steps[:, None]
        # Density of the squares: Fisher's F, up to what depends on neither
        log = special.gammaln((scatter + dofs) / 2) - special.gammaln(scatter / 2) + scatter / 2 * np.log(scatter * common)
        log = log - (scatter + dofs) / 2 * np.log(scatter * common + squares)
        weight = log.sum(axis=-1) + np.log(_SCATTER_PRIOR)[:, None]  # [scatters, steps], the common variance flat in its logarithm
        weight = np.exp(weight - weight.max())
        cell = rng.choice(weight.size, size=count, p=(weight / weight.sum()).ravel())
        return steps[cell % len(steps)], _SCATTERS[cell // len(steps)]


def trial_noise(layout: Layout) -> NoiseByRho:
    """Noise from the seeds at each x; if they are too few, from the residuals of a smooth curve, for all x alike."""
    if layout.dof >= ENOUGH_DOF:
        observed = layout.residual @ layout.observations.loss
        k = len(layout.x)
        squares = np.bincount(layout.which, weights=observed**2, minlength=k)
        dofs = np.bincount(layout.which, weights=np.diagonal(layout.residual), minlength=k)
        shown = dofs > 1e-9 * k
        return _noise(layout, layout.residual, layout.dof, np.where(shown, squares, 0), np.where(shown, dofs, 0))
    z = (layout.x - layout.x[0]) / (layout.x[-1] - layout.x[0])
    # A parabola and a wall at the top, or less, to leave at least one degree of freedom; what it does not fit counts as noise
    basis = np.column_stack([np.ones_like(z), z, z**2, -np.log(1.05 - z)])[:, : len(z) - 1]
    nothing = np.zeros(len(z))
    return _noise(layout, *smooth_residual(layout, basis), nothing, nothing)


def _noise(layout: Layout, projection: np.ndarray, dof: int, squares: np.ndarray, dofs: np.ndarray) -> NoiseByRho:
    observed = projection @ layout.observations.loss
    parts = projection @ document_parts(layout.observations)
    return NoiseByRho(float(observed @ observed) / dof, float((parts**2).sum()) / dof, dof, squares, dofs)
