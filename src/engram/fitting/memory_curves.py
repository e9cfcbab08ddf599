"""Curves of loss against memory slots, drawn over everything that the measurements leave open: form, roughness, scale and noise.

The same idea as `curves` for rho. For a given form, scale and noise the fitted curve and the likelihood have a closed form (Rasmussen &
Williams 2006, 2.7), so every combination counts as much as the measurements make it likely.
"""

import numpy as np

from engram.fitting.memory_forms import memory_forms
from engram.fitting.memory_noise import MemoryNoise

_SCALES = (0.3, 1.0, 3.0)
"""Scales of the coefficients, as multiples of the range of the measured means."""


class MemoryPosterior:
    """Every combination of form [C], scale [T] and noise [N], with its probability."""

    def __init__(self, noise: MemoryNoise) -> None:
        layout = noise.layout
        self.noise, self.means = noise, layout.means
        self.forms = memory_forms(tuple(layout.x.tolist()))
        height = max(float(np.ptp(layout.means)), 1e-9)
        self.scales = np.array(_SCALES) * height
        kernels = self.forms.points @ self.forms.points.transpose(0, 2, 1)
        # What keeps a covariance without any noise invertible, far below any difference between two curves
        errors = noise.errors + np.eye(len(layout.x)) * (1e-5 * height) ** 2
        total = (self.scales**2)[:, None, None, None] * kernels[:, None, None] + errors
        precision = np.linalg.inv(total)
        ones = precision.sum(axis=-1)
        weight = ones.sum(axis=-1, keepdims=True)
        self.level = ones / weight
        """[C, T, N, k]: the constant is level @ means."""
        self.contrast = precision - ones[..., None] * self.level[..., None, :]
        """[C, T, N, k, k]: precision with the constant taken out."""
        self.weighted = self.contrast @ self.means
        logdet = np.linalg.slogdet(total)[1] + np.log(weight[..., 0])
        log_weight = self.forms.prior[:, None, None] + noise.log_weight - 0.5 * (logdet + self.weighted @ self.means)
        self.weight = np.exp(log_weight - log_weight.max())
        self.weight /= self.weight.sum()
        """[C, T, N]"""

    def probabilities(self) -> dict[str, float]:
        """Of every form, its shape constants and roughness taken together."""
        names = np.array(self.forms.names)
        return {name: float(self.weight[names == name].sum()) for name in dict.fromkeys(self.forms.names)}

    def cv_errors(self) -> dict[str, float]:
        """Root mean square error of leaving out one inner number of slots, nats, by form, averaged over what the form leaves open."""
        names = np.array(self.forms.names)
        left_out = self.weighted / np.diagonal(self.contrast, axis1=-2, axis2=-1)
        squares = (left_out[..., 1:-1] ** 2).mean(axis=-1)
        errors = {}
        for name in self.probabilities():
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

    def draw(self, deviations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Curves for the average over all seeds that could have made the measurements, [B, G].

        `deviations` of the means are those due to documents, [B, k]. A curve is drawn from the prior and corrected by what the fit makes
        of the difference between the measurements and that curve with errors (Matheron's rule).
        """
        count = len(deviations)
        cell = rng.choice(self.weight.size, size=count, p=self.weight.ravel())
        form, scale, noise = np.unravel_index(cell, self.weight.shape)
        errors = deviations + self.noise.draw_errors(noise, rng)
        free = rng.standard_normal((count, self.forms.points.shape[-1])) * self.scales[scale, None]
        points = self.forms.points[form]
        missing = self.means - errors - np.einsum("bkr,br->bk", points, free)
        level = np.einsum("bk,bk->b", self.level[form, scale, noise], missing) + self.noise.draw_seed_level(noise, rng)
        pull = np.einsum("bkl,bl->bk", self.contrast[form, scale, noise], missing)
        coefficients = free + self.scales[scale, None] ** 2 * np.einsum("bkr,bk->br", points, pull)
        curves = np.empty((count, self.forms.grid.shape[1]))
        for index in np.unique(form):
            mine = form == index
            curves[mine] = coefficients[mine] @ self.forms.grid[index].T
        return curves + level[:, None]
