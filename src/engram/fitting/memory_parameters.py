"""Parameters of the two laws of the paper, each as if it were true: log-linear, and a power law with an offset (3.2).

For a given exponent and noise both are linear, and their constant and fall are known in closed form. The fall of a power law over the
measured range, its level and the logarithm of its exponent have flat priors, and it does not rise; exponent and noise are drawn as often
as the measurements make them likely.
"""

import numpy as np
from scipy import special

from engram.fitting.memory_forms import power_fall
from engram.fitting.memory_noise import MemoryNoise
from engram.fitting.optimum import interval
from engram.fitting.results import Interval

_EXPONENTS = (0.02, 3.0)
"""A smaller one is a straight line in the logarithm, a larger one a fall that has ended."""
_GRID = 61
_ZOOMS = 4
"""Times that the grid of exponents narrows to those that matter."""
_NEGLIGIBLE = 16
"""Log of the weight, relative to the largest, below which an exponent does not matter."""


class _Lines:
    """Straight lines in columns [E, k], one per exponent, through the means: every noise, [E, N, ...]."""

    def __init__(self, columns: np.ndarray, noise: MemoryNoise) -> None:
        means, k = noise.layout.means, len(noise.layout.x)
        height = max(float(np.ptp(means)), 1e-9)
        precision = np.linalg.inv(noise.errors + np.eye(k) * (1e-7 * height) ** 2)
        design = np.stack([np.ones_like(columns), columns], axis=-1)[:, None]
        weighted = precision @ design
        gram = design.transpose(0, 1, 3, 2) @ weighted
        self.covariance = np.linalg.inv(gram)
        """Of constant and slope, [E, N, 2, 2]."""
        self.solver = self.covariance @ weighted.transpose(0, 1, 3, 2)
        """[E, N, 2, k]: constant and slope = solver @ means."""
        self.solution = self.solver @ means
        left = means - (design @ self.solution[..., None])[..., 0]
        self.misfit = (left[..., None, :] @ (precision @ left[..., None]))[..., 0, 0]
        """[E, N]"""
        logdet = -np.linalg.slogdet(precision)[1] + np.linalg.slogdet(gram)[1]
        self.log_weight: np.ndarray = noise.log_weight - 0.5 * (logdet + self.misfit)
        """[E, N]"""


def memory_parameters(noise: MemoryNoise, deviations: np.ndarray, rng: np.random.Generator) -> dict[str, dict[str, Interval]]:
    """By law; in slots. `deviations` of the means are those due to documents, [B, k]."""
    return {"log-linear": _log_linear(noise, deviations, rng), "power-law": _power_law(noise, deviations, rng)}


def _log_linear(noise: MemoryNoise, deviations: np.ndarray, rng: np.random.Generator) -> dict[str, Interval]:
    logs = np.log10(noise.layout.x)
    middle = float(logs.mean())
    lines = _Lines((logs - middle)[None], noise)
    weight = _normal(lines.log_weight)
    level, slope = np.einsum("en,enp->p", weight, lines.solution)
    _, levels, slopes = _draw(lines, weight, noise, deviations, rng)
    return {
        "intercept": interval(float(level - slope * middle), levels - slopes * middle),
        "slope": interval(float(slope), slopes),
    }


def _power_law(noise: MemoryNoise, deviations: np.ndarray, rng: np.random.Generator) -> dict[str, Interval]:
    decades = np.log10(noise.layout.x / noise.layout.x[0])
    low, high = _EXPONENTS
    for _ in range(_ZOOMS):
        exponents = np.geomspace(low, high, _GRID)
        columns = power_fall(decades, exponents[:, None], decades[-1])
        lines = _Lines(columns - columns.mean(axis=1, keepdims=True), noise)
        # What counts is the part of the slope's distribution that falls
        log_weight = lines.log_weight + special.log_ndtr(-lines.solution[..., 1] / np.sqrt(lines.covariance[..., 1, 1]))
        matters = np.flatnonzero(log_weight.max(axis=1) > log_weight.max() - _NEGLIGIBLE)
        low, high = exponents[max(matters[0] - 1, 0)], exponents[min(matters[-1] + 1, _GRID - 1)]
    best, likely = np.unravel_index(log_weight.argmax(), log_weight.shape)
    estimate = _in_slots(noise, exponents[best], columns[best].mean(), *lines.solution[best, likely])
    which, levels, slopes = _draw(lines, _normal(log_weight), noise, deviations, rng)
    drawn = _in_slots(noise, exponents[which], columns[which].mean(axis=1), levels, slopes)
    return {name: interval(float(estimate[name]), drawn[name]) for name in estimate}


def _in_slots(noise: MemoryNoise, exponent: np.ndarray, middle: np.ndarray, level: np.ndarray, slope: np.ndarray) -> dict[str, np.ndarray]:
    """Offset, scale and exponent of level + slope (fall - middle), [B] each; where it would rise it is taken to be flat."""
    x = noise.layout.x
    whole = np.minimum(slope, 0) / -np.expm1(-exponent * np.log(x[-1] / x[0]))
    return {
        "offset": level - np.minimum(slope, 0) * middle + whole,
        "scale": -whole * x[0] ** exponent,
        "exponent": exponent,
    }


def _normal(log_weight: np.ndarray) -> np.ndarray:
    weight = np.exp(log_weight - log_weight.max())
    normal: np.ndarray = weight / weight.sum()
    return normal


def _draw(
    lines: _Lines, weight: np.ndarray, noise: MemoryNoise, deviations: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which exponent, level for the average over all seeds, and slope, [B] each."""
    cell = rng.choice(weight.size, size=len(deviations), p=weight.ravel())
    which, kind = np.unravel_index(cell, weight.shape)
    means = noise.layout.means - deviations - noise.draw_errors(kind, rng)
    level, slope = np.einsum("bpk,bk->pb", lines.solver[which, kind], means)
    return which, level + noise.draw_seed_level(kind, rng), slope
