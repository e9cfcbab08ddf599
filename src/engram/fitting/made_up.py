"""Made-up sweeps from curves that are known: what the intervals of the fits are tried on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engram.fitting.results import Observations

GRIDS = ((0, 0.2, 0.4, 0.55, 0.7, 0.8, 0.9, 1), (0, 0.2, 0.4, 0.55, 0.7, 0.85, 1))
"""Rhos of the made-up sweeps."""
_FINE = np.linspace(0, 1, 4001)

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shape:
    """A true curve, which falls from 1 (at rho = 1, or at its highest end) to 0 at `optimum`; None if several rhos are the best."""

    name: str
    curve: Curve
    optimum: float | None
    noise: tuple[float, float] = (1.0, 1.0)
    """Factors of the trials' noise at the lowest and at the highest rho."""
    documents: int | None = None
    """Number of validation documents; None: 200 to 2000."""

    @property
    def interior(self) -> bool:
        """Whether the minimum is inside."""
        return self.optimum is not None and 0 < self.optimum < 1


def _shape(name: str, curve: Curve, several: bool = False) -> Shape:
    values = curve(_FINE)
    low = values.min()
    if several:
        height = max(values.max() - low, 1e-300)
        return Shape(name, lambda rho: (curve(rho) - low) / height, None)
    # An interior minimum is scaled by what memory gains, a monotone curve by its whole height
    inside = 0 < values.argmin() < len(values) - 1
    height = values[-1] - low if inside else values.max() - low
    return Shape(name, lambda rho: (curve(rho) - low) / height, float(_FINE[values.argmin()]))


def _two_sided(optimum: float, left: float, power: float = 2) -> Curve:
    """Rises to `left` at rho = 0 and to 1 at rho = 1."""

    def curve(rho: np.ndarray) -> np.ndarray:
        distance = np.abs(rho - optimum) / np.where(rho < optimum, optimum, 1 - optimum)
        height: np.ndarray = np.where(rho < optimum, left, 1) * distance**power
        return height

    return curve


def _walls(optimum: float, power: float, eps_low: float, eps_high: float) -> Curve:
    slope_low = (optimum + eps_low) ** (-power - 1)
    slope_high = (1 - optimum + eps_high) ** (-power - 1)
    return lambda rho: (rho + eps_low) ** -power / slope_low + (1 - rho + eps_high) ** -power / slope_high


def _upper_wall(optimum: float, width: float) -> Curve:
    """A gentle fall to the right and a sharp rise at rho = 1."""
    return lambda rho: np.exp((rho - 1) / width) - rho * np.exp((optimum - 1) / width) / width


def _corner(optimum: float, left: float) -> Curve:
    """Straight down to the optimum and straight up to 1."""
    return _two_sided(optimum, left, 1)


def _cliff(end: float, width: float, base: Curve) -> Curve:
    """A curve that jumps up by 1 over the last `width` before one end."""
    return lambda rho: base(rho) + np.maximum(0, 1 - np.abs(rho - end) / width)


SHAPES = (
    _shape("quadratic 0.5", lambda rho: (rho - 0.5) ** 2),
    _shape("quadratic 0.37", lambda rho: (rho - 0.37) ** 2),
    _shape("quadratic 0.2", lambda rho: (rho - 0.2) ** 2),
    _shape("two-sided 0.8", _two_sided(0.8, 1.5)),
    _shape("two-sided 0.2", _two_sided(0.2, 0.5)),
    _shape("two-sided 0.6", _two_sided(0.6, 0.3)),
    _shape("quartic 0.5", _two_sided(0.5, 1, 4)),
    _shape("quartic 0.65", _two_sided(0.65, 0.6, 4)),
    _shape("power walls 0.4", _walls(0.4, 0.5, 0.1, 0.05)),
    _shape("power walls 0.75", _walls(0.75, 1, 0.2, 0.05)),
    _shape("log walls 0.55", _walls(0.55, 0.05, 0.05, 0.05)),
    _shape("upper wall 0.7", _upper_wall(0.7, 0.12)),
    _shape("upper wall 0.5", _upper_wall(0.5, 0.2)),
    _shape("linear to 0", lambda rho: rho),
    _shape("saturating to 0", lambda rho: np.exp(rho / 0.25)),
    _shape("linear to 1", lambda rho: -rho),
    _shape("saturating to 1", lambda rho: np.exp(-rho / 0.25)),
    _shape("flat", lambda rho: 0 * rho, several=True),
    _shape("flat to 0.5", lambda rho: np.maximum(rho - 0.5, 0), several=True),
    _shape("flat from 0.5", lambda rho: np.maximum(0.5 - rho, 0), several=True),
    _shape("two-sided 0.05", _two_sided(0.05, 0.3)),
    _shape("two-sided 0.95", _two_sided(0.95, 1.5)),
    _shape("shallow 0.7", _two_sided(0.7, 0.15)),
    _shape("corner 0.05", _corner(0.05, 0.3)),
    _shape("corner 0.5", _corner(0.5, 1)),
    _shape("corner 0.7", _corner(0.7, 0.3)),
    _shape("corner 0.95", _corner(0.95, 3)),
    _shape("cliff at 0, 0.4", _cliff(0, 0.05, lambda rho: 0.5 * (rho - 0.4) ** 2)),
    _shape("cliff at 1, 0.6", _cliff(1, 0.05, lambda rho: 0.15 * (rho - 0.6) ** 2)),
    _shape("W", lambda rho: 30 * (rho - 0.3) ** 2 * (rho - 0.8) ** 2 + 0.2 * rho),
    replace(_shape("flat, noise x 3 at 0", lambda rho: 0 * rho, several=True), noise=(3.0, 1.0)),
    replace(_shape("flat, noise x 3 at 1", lambda rho: 0 * rho, several=True), noise=(1.0, 3.0)),
    replace(_shape("flat to 0.5, noise x 3 at 0", lambda rho: np.maximum(rho - 0.5, 0), several=True), noise=(3.0, 1.0)),
    replace(_shape("linear to 0, noise x 3 at 0", lambda rho: rho), noise=(3.0, 1.0)),
    replace(_shape("linear to 0, noise x 3 at 1", lambda rho: rho), noise=(1.0, 3.0)),
    replace(_shape("quadratic 0.5, noise x 3 at 1", lambda rho: (rho - 0.5) ** 2), noise=(1.0, 3.0)),
    replace(_shape("quadratic 0.5, 12 documents", lambda rho: (rho - 0.5) ** 2), documents=12),
)
"""Curves of the benchmark."""


def synthesize(shape: Shape, n_seeds: int, rng: np.random.Generator) -> tuple[Observations, float]:
    """A made-up sweep and the true height of its curve, nats per token.

    Trials have noise of their own (0.005 to 0.012 nats) and an effect of their seed (0.01). Documents (200 to 2000) have heavy-tailed
    lengths, a loss of their own, a preference for one end of rho or the other, and noise with every trial.
    """
    rhos = np.array(GRIDS[rng.integers(len(GRIDS))], dtype=float)
    height = rng.uniform(0.02, 0.1)
    noise = rng.uniform(0.005, 0.012)
    n_documents = int(np.exp(rng.uniform(np.log(200), np.log(2000)))) if shape.documents is None else shape.documents
    n_tokens = np.clip(np.exp(rng.normal(6, 1, n_documents)), 20, 4096).round()
    x = np.repeat(rhos, n_seeds)
    seed = np.tile(np.arange(n_seeds), len(rhos))
    ends = np.where(x == rhos[0], shape.noise[0], np.where(x == rhos[-1], shape.noise[1], 1.0))
    loss = 3.2 + height * shape.curve(x) + rng.normal(0, 0.01, n_seeds)[seed] + rng.normal(0, noise * ends, len(x))
    loss = loss[:, None] + rng.normal(0, 0.5, n_documents) + (x[:, None] - 0.5) * rng.normal(0, 0.08, n_documents)
    loss = loss + rng.normal(0, rng.uniform(0.01, 0.06), (len(x), n_documents))
    return Observations(x, seed, loss * n_tokens, n_tokens), height
