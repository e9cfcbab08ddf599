"""Forms that loss against the logarithm of memory slots may have.

The paper fits a straight line and a power law (3.2). Neither is known to be true, and which of them is makes all the difference beyond the
measurements; so forms that end their fall, or turn, stand beside them. Every form is a basis whose coefficients are Gaussian around zero
with one common scale, as in `curves`; none of them must fall, because a memory that is too large may hurt.

No true curve is exactly one of these, so each has a rough part: a random walk of the slope, integrated (Wahba 1978), which starts at the
fewest slots, bends as much beyond the measurements as within them, and so widens the band with the distance from the last one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BEYOND = 2
"""How far the curve is drawn, as a multiple of the largest number of slots measured: further out the band holds mostly by being wider
than what the law does there (docs/fitting.md)."""
BAND_POINTS = 121
"""Points of the fitted curve, evenly spaced in the logarithm."""
_EXPONENTS = np.geomspace(0.03, 2, 12)
_FLOORS = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.15, 1.3)
"""Where a straight fall ends, as a share of the measured range; beyond 1 it ends where nobody has looked."""
_CENTERS = (0.15, 0.35, 0.55, 0.75, 0.95, 1.2)
_WIDTHS = (0.1, 0.25)
"""Centres and widths of logistic falls, as shares of the measured range."""
_KNOTS = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Where one straight line gives way to another."""
_ROUGH = (0.03, 0.1, 0.3, 0.9)
"""By how much the slope walks over the measured range, as a share of the scale."""
_SMOOTH = (1.0, 3.0)
"""The same where the walk is all there is beside a straight line."""
_TRUNCATE = 1e-7
"""Variance, as a share of the largest, below which a direction of the walk is left out."""


@dataclass(frozen=True)
class MemoryForms:
    """Bases at the measured slots and on the band's grid, padded with zero columns to a common width r."""

    names: tuple[str, ...]
    """Name of every basis, [C]; bases of one name differ in shape constants or roughness."""
    prior: np.ndarray
    """Log of the prior probability of every basis, [C]: the same for every name."""
    points: np.ndarray
    """[C, k, r]"""
    grid: np.ndarray
    """[C, G, r]"""
    x: np.ndarray
    """Slots of the grid, [G]."""


@lru_cache(maxsize=8)
def memory_forms(x: tuple[float, ...]) -> MemoryForms:
    """The forms for these distinct numbers of slots, ascending and above 0."""
    decades = np.log10(np.array(x) / x[0])
    span = float(decades[-1])
    grid = np.linspace(0, span + np.log10(BEYOND), BAND_POINTS)
    v = np.concatenate([decades, grid]) / span
    bases = list(_bases(v, span))
    width = max(basis.shape[1] for _, basis in bases)
    padded = np.stack([np.pad(basis, ((0, 0), (0, width - basis.shape[1]))) for _, basis in bases])
    names = tuple(name for name, _ in bases)
    prior = np.array([-np.log(names.count(name)) for name in names])
    return MemoryForms(names, prior, padded[:, : len(x)], padded[:, len(x) :], x[0] * 10**grid)


def _bases(v: np.ndarray, span: float) -> Iterator[tuple[str, np.ndarray]]:
    """Names and bases [k + G, r] at `v`, which is 0 at the fewest and 1 at the most slots measured, `span` decades apart."""
    walk = _integrated_walk(v)
    for name, basis in _parametric(v, span):
        for share in _ROUGH:
            yield name, np.column_stack([basis, share * walk])
    for share in _SMOOTH:
        yield "smooth", np.column_stack([v, share * walk])


def _parametric(v: np.ndarray, span: float) -> Iterator[tuple[str, np.ndarray]]:
    """Falls and bends of about 1 over the measured range."""
    yield "log-linear", v
    for exponent in _EXPONENTS:
        yield "power-law", power_fall(v * span, float(exponent), span)
    for end in _FLOORS:
        yield "floor", np.minimum(v, end) / min(end, 1)
    for center in _CENTERS:
        for width in _WIDTHS:
            rise = 1 / (1 + np.exp((center - v) / width))
            yield "logistic", (rise - rise.min()) / np.ptp(rise[v <= 1])
    for knot in _KNOTS:
        yield "two-slope", np.column_stack([v, np.maximum(v - knot, 0)])
    yield "parabola", np.column_stack([v, v * (1 - v)])


def power_fall(decades: np.ndarray, exponent: float | np.ndarray, span: float) -> np.ndarray:
    """How far a power law has come at `decades` beyond the fewest slots: 0 there, 1 after `span` decades; the arguments broadcast."""
    rate = -np.log(10) * np.asarray(exponent)
    fall: np.ndarray = np.expm1(rate * decades) / np.expm1(rate * span)
    return fall


def _integrated_walk(v: np.ndarray) -> np.ndarray:
    """Basis of a curve whose slope is a random walk from 0 at v = 0."""
    low, high = np.minimum(v[:, None], v), np.maximum(v[:, None], v)
    sizes, vectors = np.linalg.eigh(low**2 * (3 * high - low) / 6)
    keep = sizes > _TRUNCATE * sizes[-1]
    basis: np.ndarray = vectors[:, keep] * np.sqrt(sizes[keep])
    return basis
