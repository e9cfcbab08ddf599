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


class Posterior:
    """Every combination of form, scale and noise, with its probability."""

    def __init__(self, layout: Layout, document_covariance: np.ndarray, noise: np.ndarray) -> None:
        """Start from the covariance of the means under document sampling, [k, k], and variances that trials may have at each x, equally
        probable, [S, k]."""
        self.forms = forms_for(tuple(layout.x.tolist()))
        self.layout, self.noise = layout, noise
        height = float(np.ptp(layout.means))
        self.scales = np.array(_SCALES) * max(height, 1e-9)
        k = len(layout.x)
        kernels = self.forms.points @ self.forms.points.transpose(0, 2, 1)
        errors = document_covariance + layout.covariance(noise) + np.eye(k) * (1e-5 * self.scales[0]) ** 2
        total = (self.scales**2)[:, None, None, None] * kernels[:, None, None] + errors
        precision = np.linalg.inv(total)
        ones = precision.sum(axis=-1)
        weight = ones.sum(axis=-1, keepdims=True)
        self.level = ones / weight
        """[C, T, S, k]: the constant is level @ means."""
        self.contrast = precision - ones[..., None] * self.level[..., None, :]
        """[C, T, S, k, k]: precision with the constant taken out."""
        weighted = self.contrast @ layout.means
        logdet = np.linalg.slogdet(total)[1] + np.log(weight[..., 0])
        log_weight = -0.5 * (logdet + weighted @ layout.means) + self.forms.prior[:, None, None]
        self.weight = np.exp(log_weight - log_weight.max())
        self.weight /= self.weight.sum()
        """[C, T, S]"""
        self.left_out = weighted / np.diagonal(self.contrast, axis1=-2, axis2=-1)
        """[C, T, S, k]: errors of leaving out one x."""

    def cv_errors(self) -> dict[str, float]:
        """Root mean square error of leaving out one x, by form, averaged over its scales and noises by their probability.

        Only inner points are left out: an end would have to be extrapolated, and the steep ends would outweigh the middle.
        """
        errors = {}
        squares = (self.left_out[..., 1:-1] ** 2).mean(axis=-1)
        for name in dict.fromkeys(self.forms.names):
            mine = np.array([other == name for other in self.forms.names])
            weight = self.weight[mine] + 1e-300
            errors[name] = float(np.sqrt((squares[mine] * weight).sum() / weight.sum()))
        return errors

    def chosen(self) -> str:
        """The form with the smallest error of leaving out one x."""
        errors = self.cv_errors()
        return min(errors, key=lambda name: errors[name])

    def mean_curve(self) -> np.ndarray:
        """The expected curve on the grid, over all forms, [G]."""
        means = self.layout.means
        level = (self.level @ means * self.weight).sum()
        pull = self.contrast @ means * (self.weight * (self.scales**2)[:, None])[..., None]
        coefficients = np.einsum("ckr,ctsk->cr", self.forms.points, pull)
        curve: np.ndarray = level + np.einsum("cgr,cr->g", self.forms.grid, coefficients)
        return curve

    def draw(self, deviations: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Curves that could have made the measurements, [B, G], and the errors of the means that go with them, [B, k].

        `deviations` are those due to documents, [B, k]. A curve is drawn from the form and corrected by what the fit makes of the
        difference between the measured means and that curve with errors (Matheron's rule): the result is a draw from the posterior, with
        the documents' own distribution instead of a Gaussian.
        """
        count = len(deviations)
        cell = rng.choice(self.weight.size, size=count, p=self.weight.ravel())
        form, scale, noise = np.unravel_index(cell, self.weight.shape)
        errors = deviations + trial_errors(self.layout, self.noise[noise], rng)
        free = rng.standard_normal((count, self.forms.points.shape[-1])) * self.scales[scale, None]
        points = self.forms.points[form]
        missing = self.layout.means - errors - np.einsum("bkr,br->bk", points, free)
        level = np.einsum("bk,bk->b", self.level[form, scale, noise], missing)
        pull = np.einsum("bkl,bl->bk", self.contrast[form, scale, noise], missing)
        coefficients = free + self.scales[scale, None] ** 2 * np.einsum("bkr,bk->br", points, pull)
        curves = np.empty((count, self.forms.grid.shape[1]))
        for index in np.unique(form):
            mine = form == index
            curves[mine] = coefficients[mine] @ self.forms.grid[index].T
        return curves + level[:, None], errors
