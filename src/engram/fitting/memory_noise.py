"""What the trials of a memory sweep tell about their noise, also where it is not the same at all numbers of slots."""

from dataclasses import dataclass

import numpy as np

from engram.fitting.layout import ENOUGH_DOF, Layout, document_parts, noise_under, smooth_residual

_PATTERNS = ((1.0, 1.0, 0.5), (3.0, 1.0, 0.25), (1.0, 3.0, 0.25))
"""Factors of the noise at the fewest and at the most slots, and their prior probability."""
_STEPS = 11
"""Sizes of the noise that are tried."""
_FEW = (-3.5, 2.0)
"""Logarithms of the smallest and largest size, relative to the estimate, where seeds are too few to tell: what a parabola leaves over is
mostly misfit then."""
_RATIOS = np.array([0.4, 1.2, 4.0, 12.0, 40.0])
"""Standard deviations that the common effect of a seed may have, as multiples of a trial's noise."""
_RATIO_PRIOR = np.array([1.0, 1.0, 1.0, 0.02, 0.002])
"""How probable they are beforehand, relative to each other: the last two must be seen to count, which takes two seeds."""
_LEAST = 1e-6
"""Smallest noise, as a share of the range of the means."""


@dataclass(frozen=True)
class MemoryNoise:
    """Every combination of a size and a pattern, N of them."""

    layout: Layout
    sds: np.ndarray
    """Standard deviation of every trial beyond its documents, nats, [N, n]."""
    sizes: np.ndarray
    """The same of a trial where the factor is 1, [N]."""
    errors: np.ndarray
    """Covariance of the means, documents included, [N, k, k]."""
    log_weight: np.ndarray
    """Log of the prior times the likelihood of what the means do not hold, [N]."""

    def draw_errors(self, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Errors of the means due to the trials' own noise, [B, k], for combinations [B]."""
        noise = self.sds[which] * rng.standard_normal((len(which), self.sds.shape[1]))
        errors: np.ndarray = noise @ self.layout.to_means.T
        return errors

    def draw_seed_level(self, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """How far the average over the seeds here may be from the average over all seeds, nats, [B], for combinations [B]."""
        effects, size = self.layout.seed_means, self.sizes[which, None]
        variance = (_RATIOS * size) ** 2
        observed = variance + size**2 / len(self.layout.x)
        n_seeds = len(effects)
        log_weight = np.log(_RATIO_PRIOR) - 0.5 * ((n_seeds - 1) * np.log(observed) + (effects @ effects) / observed)
        weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True)).cumsum(axis=1)
        drawn = (rng.random((len(which), 1)) * weight[:, -1:] > weight[:, :-1]).sum(axis=1)
        level: np.ndarray = np.sqrt(variance[np.arange(len(which)), drawn] / n_seeds) * rng.standard_normal(len(which))
        return level


def memory_noise(layout: Layout) -> MemoryNoise:
    """Sizes around the estimate from the seeds; where those are too few, around what a parabola in the logarithm leaves over."""
    obs, k = layout.observations, len(layout.x)
    if layout.dof >= ENOUGH_DOF:
        estimate = noise_under(layout, layout.residual, layout.dof)
        steps = np.linspace(-3, 3, _STEPS) / np.sqrt(2 * layout.dof)
    else:
        v = np.log(layout.x / layout.x[0]) / np.log(layout.x[-1] / layout.x[0])
        estimate = noise_under(layout, *smooth_residual(layout, np.column_stack([np.ones_like(v), v, v**2])[:, : k - 1]))
        steps = np.linspace(*_FEW, _STEPS)
    height = max(float(np.ptp(layout.means)), 1e-9)
    # Of noise that documents explain a share remains: their own part is an estimate too
    sizes = np.sqrt(max(estimate.own, 0.05 * estimate.variance, (_LEAST * height) ** 2)) * np.exp(steps)
    where = np.searchsorted(layout.x, obs.x)
    factors = np.array([np.where(where == 0, low, np.where(where == k - 1, high, 1.0)) for low, high, _ in _PATTERNS])
    sds = (factors[:, None] * sizes[:, None]).reshape(-1, len(obs.x))
    parts = document_parts(obs)
    documents = parts @ parts.T
    total = documents + sds[:, :, None] * sds[:, None, :] * np.eye(len(obs.x))
    errors = layout.to_means @ total @ layout.to_means.T
    log_weight = np.repeat(np.log([prior for *_, prior in _PATTERNS]), _STEPS)
    if layout.dof:
        # The residual has no more than `dof` dimensions: an orthonormal basis of them
        basis = np.linalg.svd(layout.residual)[0][:, : layout.dof]
        residual = obs.loss @ basis
        inside = basis.T @ total @ basis
        log_weight = log_weight - 0.5 * (np.linalg.slogdet(inside)[1] + np.linalg.solve(inside, residual[:, None])[..., 0] @ residual)
    return MemoryNoise(layout, sds, np.tile(sizes, len(_PATTERNS)), errors, log_weight)
