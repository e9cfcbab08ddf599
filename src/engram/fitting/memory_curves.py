"""Curves of loss against memory slots, drawn over everything that the measurements leave open: form, roughness, scale and noise.

The same idea as `curves` for rho. For a given form, scale and noise the fitted curve and the likelihood have a closed form (Rasmussen &
Williams 2006, 2.7), so every combination counts as much as the measurements make it likely.
"""

import numpy as np

from engram.fitting.averaging import FormAverage
from engram.fitting.memory_forms import memory_forms
from engram.fitting.memory_noise import MemoryNoise

_SCALES = (0.3, 1.0, 3.0)
"""Scales of the coefficients, as multiples of the range of the measured means."""


class MemoryPosterior(FormAverage):
    """Every combination of form [C], scale [T] and noise [N], with its probability."""

    def __init__(self, noise: MemoryNoise) -> None:
        layout = noise.layout
        forms = memory_forms(tuple(layout.x.tolist()))
        self.noise, self.x = noise, forms.x
        height = max(float(np.ptp(layout.means)), 1e-9)
        # What keeps a covariance without any noise invertible, far below any difference between two curves
        errors = noise.errors + np.eye(len(layout.x)) * (1e-5 * height) ** 2
        super().__init__(forms, layout.means, np.array(_SCALES) * height, errors, noise.log_weight)

    def draw(self, deviations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Curves for the average over all seeds that could have made the measurements, [B, G].

        `deviations` of the means are those due to documents, [B, k].
        """
        curves, _, which = self.draw_curves(deviations, lambda drawn: self.noise.draw_errors(drawn, rng), rng)
        return curves + self.noise.draw_seed_level(which, rng)[:, None]
