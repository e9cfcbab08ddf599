"""The average over forms of a curve: how likely each makes the measurements, and curves drawn over all of them.

Every form is a basis whose coefficients are Gaussian around zero with one common scale; the constant is free. For a given form, scale and
noise everything has a closed form (Rasmussen & Williams 2006, 2.7 and 5.4.2), so every combination counts as much as the measurements make
it likely.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np


class Forms(Protocol):
    """Bases at the measured points and on the grid, padded with zero columns to a common width r."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every basis, [C]; bases of one name differ in a shape constant."""

    @property
    def prior(self) -> np.ndarray:
        """Log of the prior probability of every basis, [C]."""

    @property
    def points(self) -> np.ndarray:
        """[C, k, r]"""

    @property
    def grid(self) -> np.ndarray:
        """[C, G, r]"""


class FormAverage:
    """Every combination of form [C], scale [T] and noise [S], with its probability."""

    def __init__(
        self, forms: Forms, means: np.ndarray, scales: np.ndarray, errors: np.ndarray, log_prior: np.ndarray | float = 0.0
    ) -> None:
        """Weigh the combinations.

        Args:
            forms: the bases.
            means: measured, nats per token, [k].
            scales: that the coefficients may have, nats per token, [T].
            errors: covariances that the means may have, [S, k, k], positive definite.
            log_prior: log of the probability of each of these, [S], up to a constant.
        """
        self.forms, self.means, self.scales = forms, means, scales
        kernels = forms.points @ forms.points.transpose(0, 2, 1)
        total = (scales**2)[:, None, None, None] * kernels[:, None, None] + errors
        precision = np.linalg.inv(total)
        ones = precision.sum(axis=-1)
        weight = ones.sum(axis=-1, keepdims=True)
        self.level = ones / weight
        """[C, T, S, k]: the constant is level @ means."""
        self.contrast = precision - ones[..., None] * self.level[..., None, :]
        """[C, T, S, k, k]: precision with the constant taken out."""
        self.weighted = self.contrast @ means
        """[C, T, S, k]"""
        logdet = np.linalg.slogdet(total)[1] + np.log(weight[..., 0])
        log_weight = -0.5 * (logdet + self.weighted @ means) + forms.prior[:, None, None] + log_prior
        self.weight = np.exp(log_weight - log_weight.max())
        self.weight /= self.weight.sum()
        """[C, T, S]"""

    def probabilities(self) -> dict[str, float]:
        """Of every form, its shape constants taken together."""
        names = np.array(self.forms.names)
        return {name: float(self.weight[names == name].sum()) for name in dict.fromkeys(self.forms.names)}

    def cv_errors(self) -> dict[str, float]:
        """Root mean square error of leaving out one x, by form, averaged over its scales and noises by their probability.

        Only inner points are left out: an end would have to be extrapolated, and steep ends would outweigh the middle.
        """
        names = np.array(self.forms.names)
        left_out = self.weighted / np.diagonal(self.contrast, axis1=-2, axis2=-1)
        squares = (left_out[..., 1:-1] ** 2).mean(axis=-1)
        errors = {}
        for name in dict.fromkeys(self.forms.names):
            weight = self.weight[names == name] + 1e-300
            errors[name] = float(np.sqrt((squares[names == name] * weight).sum() / weight.sum()))
        return errors

    def mean_curve(self) -> np.ndarray:
        """The expected curve on the grid, over all forms, [G]."""
        level = (self.level @ self.means * self.weight).sum()
        pull = self.weighted * (self.weight * (self.scales**2)[:, None])[..., None]
        coefficients = np.einsum("ckr,ctsk->cr", self.forms.points, pull)
        curve: np.ndarray = level + np.einsum("cgr,cr->g", self.forms.grid, coefficients)
        return curve

    def draw_curves(
        self, deviations: np.ndarray, noise_errors: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Curves that could have made the measurements, [B, G], the errors of the means that go with them, [B, k], and their noise, [B].

        `deviations` are those due to documents, [B, k]; `noise_errors` draws those due to noise, [B, k], for places in [S], [B]. A curve is
        drawn from the form and corrected by what the fit makes of the difference between the measured means and that curve with errors
        (Matheron's rule): the result is a draw from the posterior, with the documents' own distribution instead of a Gaussian.
        """
        count = len(deviations)
        cell = rng.choice(self.weight.size, size=count, p=self.weight.ravel())
        form, scale, noise = np.unravel_index(cell, self.weight.shape)
        errors = deviations + noise_errors(noise)
        free = rng.standard_normal((count, self.forms.points.shape[-1])) * self.scales[scale, None]
        points = self.forms.points[form]
        missing = self.means - errors - np.einsum("bkr,br->bk", points, free)
        level = np.einsum("bk,bk->b", self.level[form, scale, noise], missing)
        pull = np.einsum("bkl,bl->bk", self.contrast[form, scale, noise], missing)
        coefficients = free + self.scales[scale, None] ** 2 * np.einsum("bkr,bk->br", points, pull)
        curves = np.empty((count, self.forms.grid.shape[1]))
        for index in np.unique(form):
            mine = form == index
            curves[mine] = coefficients[mine] @ self.forms.grid[index].T
        return curves + level[:, None], errors, noise
