"""Forms that a curve of loss against rho may have, and curves drawn from what the measurements leave open.

Every form is a basis whose coefficients are Gaussian around zero with one common scale; the constant is free. Nothing says that a true
curve is exactly a parabola, so each parametric form also has a rough part, a fixed share of the scale: without it the many far points
would place the minimum, and with too much certainty. For a given scale and noise everything has a closed form: the fitted curve, the
likelihood of the measurements, the error of leaving out one rho (Rasmussen & Williams 2006, 2.7 and 5.4.2). Form, scale and noise are all
unknown, so the curves of the replicates are drawn over all of them, each as often as the measurements make it likely.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engram.fitting.averaging import FormAverage
from engram.fitting.bootstrap import trial_errors
from engram.fitting.layout import Layout

GRID_POINTS = 201
"""Points of the fitted curve over the measured range."""
_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Scales of the coefficients, as multiples of the range of the measured means."""
_LENGTHS = (0.35, 0.6, 1.1)
"""Lengths over which a smooth curve bends, as shares of the measured range."""
_WALLS = (0.03, 0.1, 0.4)
"""Distances beyond an end at which a wall would be infinitely steep."""
_WARPS = (None, 0.03, 0.15)
"""The same for smooth curves that bend faster towards an end; None: not faster."""
_ROUGH_SHARE = 0.25
"""Share of the scale for the rough part of a parametric form."""
_ROUGH_LENGTH = 0.25
"""Length over which the rough part bends."""
_TRUNCATE = 1e-4
"""Variance, as a share of the largest, below which a direction of a basis is left out."""


@dataclass(frozen=True)
class Forms:
    """Bases at the measured points and on the grid, padded with zero columns to a common width r."""

    names: tuple[str, ...]
    """Name of every basis, [C]; bases of one name differ in a shape constant."""
    prior: np.ndarray
    """Log of the prior probability of every basis, [C]."""
    points: np.ndarray
    """[C, k, r]"""
    grid: np.ndarray
    """[C, G, r]"""


@lru_cache(maxsize=8)
def forms_for(x: tuple[float, ...]) -> Forms:
    """The candidate forms for these distinct x; ends of the measured range count as the ends of the curve."""
    span = x[-1] - x[0]
    grid = np.linspace(0, 1, GRID_POINTS)
    z = np.concatenate([(np.array(x) - x[0]) / span, grid])
    rough = _ROUGH_SHARE * matern(z, _ROUGH_LENGTH)
    parametric = [("line", _polynomial(z, 1)), ("quadratic", _polynomial(z, 2)), ("cubic", _polynomial(z, 3))]
    parametric += [("walls", np.column_stack([_wall(z, low), _wall(1 - z, high)])) for low in _WALLS for high in _WALLS]
    bases = [(name, np.hstack([basis, rough])) for name, basis in parametric]
    for low in _WARPS:
        for high in _WARPS:
            name = "smooth" if low is None and high is None else "smooth, steep ends"
            bases += [(name, matern(_warp(z, low, high), length)) for length in _LENGTHS]
    width = max(basis.shape[1] for _, basis in bases)
    padded = np.stack([np.pad(basis, ((0, 0), (0, width - basis.shape[1]))) for _, basis in bases])
    names = tuple(name for name, _ in bases)
    prior = np.array([-np.log(names.count(name)) for name in names])
    return Forms(names, prior, padded[:, : len(x)], padded[:, len(x) :])


def _polynomial(z: np.ndarray, degree: int) -> np.ndarray:
    return np.polynomial.legendre.legvander(2 * z - 1, degree)[:, 1:] / 2


def _wall(z: np.ndarray, eps: float) -> np.ndarray:
    """A logarithm that falls by 1 over the range, steep at 0."""
    wall: np.ndarray = -np.log((z + eps) / (1 + eps)) / np.log((1 + eps) / eps)
    return wall


def _warp(z: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """Stretch the ends, so that the curve may bend faster there."""
    stretched = z.copy()
    if low is not None:
        stretched = stretched + 1 - _wall(z, low)
    if high is not None:
        stretched = stretched + _wall(1 - z, high)
    return stretched / stretched.max()


def matern(z: np.ndarray, length: float) -> np.ndarray:
    """Basis of a Gaussian process with the Matern covariance of order 3/2, whose curves have a slope but may change it quickly."""
    distance = np.sqrt(3) * np.abs(z[:, None] - z) / length
    sizes, vectors = np.linalg.eigh((1 + distance) * np.exp(-distance))
    keep = sizes > _TRUNCATE * sizes[-1]
    basis: np.ndarray = vectors[:, keep] * np.sqrt(sizes[keep])
    return basis


class Posterior(FormAverage):
    """Every combination of form, scale and noise, with its probability."""

    def __init__(self, layout: Layout, document_covariance: np.ndarray, noise: np.ndarray) -> None:
        """Start from the covariance of the means under document sampling, [k, k], and variances that trials may have at each x, equally
        probable, [S, k]."""
        self.layout, self.noise = layout, noise
        scales = np.array(_SCALES) * max(float(np.ptp(layout.means)), 1e-9)
        errors = document_covariance + layout.covariance(noise) + np.eye(len(layout.x)) * (1e-5 * scales[0]) ** 2
        super().__init__(forms_for(tuple(layout.x.tolist())), layout.means, scales, errors)

    def chosen(self) -> str:
        """The form with the smallest error of leaving out one x."""
        errors = self.cv_errors()
        return min(errors, key=lambda name: errors[name])

    def draw(self, deviations: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Curves that could have made the measurements, [B, G], and the errors of the means that go with them, [B, k].

        `deviations` are those due to documents, [B, k].
        """
        curves, errors, _ = self.draw_curves(deviations, lambda which: trial_errors(self.layout, self.noise[which], rng), rng)
        return curves, errors
