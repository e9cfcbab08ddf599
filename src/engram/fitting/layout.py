"""The two-way layout of a sweep: a trial's loss is a function of x, plus the common effect of its seed, plus noise of its own.

    loss[t] = f(x[t]) + seed_effect[seed[t]] + noise[t]

Both factors are estimated by least squares, so a missing trial does not shift the curve by the effect of its seed.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from engram.errors import UserError
from engram.fitting.results import Observations

ENOUGH_DOF = 3
"""Degrees of freedom of seeds within x from which on their spread alone gives the noise."""
_RANK = 1e-9
_OUTLIER_LEVEL = 0.001
_OUTLIER_DOF = 6
"""Degrees of freedom below which an outlier cannot be told from noise."""


@dataclass(frozen=True)
class Layout:
    """Trials in the order of (x, seed), and linear functions of their losses."""

    observations: Observations
    """Sorted by x, then seed."""
    x: np.ndarray
    """Distinct x, ascending, [k]."""
    which: np.ndarray
    """Place of each trial's x among them, int [n]."""
    means: np.ndarray
    """Loss at each x, for the average seed, [k]."""
    to_means: np.ndarray
    """[k, n]: means = to_means @ loss."""
    counts: np.ndarray
    """Trials at each x, [k]."""
    n_seeds: int
    """Seeds that every x has."""
    residual: np.ndarray
    """Projection of the losses on what the layout does not explain, [n, n]."""
    dof: int
    """Rank of `residual`."""
    seed_means: np.ndarray
    """Effect of each seed minus their average, [S]; a single zero if seeds cannot be told from x."""

    def covariance(self, variances: np.ndarray) -> np.ndarray:
        """Of the means for trials with these variances at each x, nats^2, [..., k] to [..., k, k]."""
        covariance: np.ndarray = np.einsum("kn,...n,ln->...kl", self.to_means, variances[..., self.which], self.to_means)
        return covariance


@dataclass(frozen=True)
class TrialNoise:
    """Noise of one trial around its curve, the same for all x, after removing the effect of its seed."""

    variance: float
    """nats^2"""
    from_documents: float
    """Part of it due to document sampling, which comes with the documents and must not be counted twice."""
    dof: int
    """Degrees of freedom of the estimate; 0 when there is none."""

    @property
    def own(self) -> float:
        """Variance of trials beyond that of their documents, nats^2."""
        return max(self.variance - self.from_documents, 0)


def noise_under(layout: "Layout", projection: np.ndarray, dof: int) -> TrialNoise:
    """Noise estimated from what a projection [n, n] of rank `dof` leaves of the losses."""
    observed = projection @ layout.observations.loss
    parts = projection @ document_parts(layout.observations)
    return TrialNoise(float(observed @ observed) / dof, float((parts**2).sum()) / dof, dof)


def document_parts(observations: Observations) -> np.ndarray:
    """Contribution of each document to the deviation of a trial's mean loss, [n, D]; the sum of squares is the sampling variance."""
    total = observations.n_tokens.sum()
    parts: np.ndarray = (observations.loss_sum - observations.loss[:, None] * observations.n_tokens) / total
    return parts


def lay_out(observations: Observations) -> Layout:
    """Estimate the means over seeds. UserError when arrays do not match or hold anything but finite numbers."""
    obs = _checked(observations)
    x, which = np.unique(obs.x, return_inverse=True)
    seeds, whose = np.unique(obs.seed, return_inverse=True)
    n, k = len(obs.x), len(x)
    at_x = np.eye(k)[which]
    of_seed = np.eye(len(seeds))[whose]
    counts = at_x.sum(axis=0)
    complete = int((at_x.T @ of_seed > 0).all(axis=0).sum())
    # Sum-to-zero coding, so that the x effects are for the average seed
    coded = of_seed[:, :-1] - of_seed[:, -1:]
    design = np.hstack([at_x, coded])
    if np.linalg.matrix_rank(design, tol=_RANK * n) < design.shape[1]:
        # Seeds and x do not overlap enough to be told apart: a seed's effect is then part of the noise of its trials
        design, seeds = at_x, seeds[:1]
    inverse = np.linalg.pinv(design)
    to_means = inverse[:k]
    effects = inverse[k:] @ obs.loss
    return Layout(
        observations=obs,
        x=x,
        which=which,
        means=to_means @ obs.loss,
        to_means=to_means,
        counts=counts,
        n_seeds=complete,
        residual=np.eye(n) - design @ inverse,
        dof=n - design.shape[1],
        seed_means=np.append(effects, -effects.sum()),
    )


def without_outliers(layout: Layout) -> tuple[Layout, str]:
    """Leave out trials so far off that noise does not explain them, and name them in a sentence, which is empty if there are none.

    Least squares would spread one failed training over the whole curve. Trials are left out only if at least three share an x: of two,
    nobody can say which is wrong. The test uses externally studentised residuals of the two-way layout (Cook & Weisberg 1982), at a level
    of 0.001 for all trials together; at most one trial in ten is left out.
    """
    said = []
    for _ in range(len(layout.observations.x) // 10):
        obs = layout.observations
        if layout.dof < _OUTLIER_DOF:
            break
        residual, share = layout.residual @ obs.loss, np.diagonal(layout.residual)
        judged = (layout.counts[layout.which] >= 3) & (share > _RANK)
        safe = np.where(judged, share, 1)
        others = np.maximum((residual @ residual - residual**2 / safe) / (layout.dof - 1), 1e-300)
        t = np.where(judged, np.abs(residual) / np.sqrt(safe * others), 0)
        worst = int(t.argmax())
        # Rounding errors are not noise to judge by
        rounding = 1e-9 * (1 + float(np.abs(obs.loss).max()))
        if np.abs(residual[worst]) < rounding or 2 * special.stdtr(layout.dof - 1, -t[worst]) * len(t) > _OUTLIER_LEVEL:
            break
        off = residual[worst] / share[worst]
        said.append(f"x = {obs.x[worst]:g}, seed {obs.seed[worst]} ({off:+.3f} nats off)")
        keep = np.arange(len(t)) != worst
        layout = lay_out(Observations(obs.x[keep], obs.seed[keep], obs.loss_sum[keep], obs.n_tokens))
    return layout, f"Left out as outliers: {'; '.join(said)}." if said else ""


def smooth_residual(layout: Layout, basis: np.ndarray) -> tuple[np.ndarray, int]:
    """Projection of the losses on what neither seeds nor a smooth curve explain, and its rank.

    `basis` is the curve's design at the distinct x, [k, p], including the constant. With one seed nothing else shows the noise; if the
    curve does not fit, the misfit counts as noise.
    """
    obs = layout.observations
    whose = np.unique(obs.seed, return_inverse=True)[1]
    seeds = np.eye(whose.max() + 1)[whose] if len(layout.seed_means) > 1 else np.empty((len(obs.x), 0))
    design = np.hstack([basis[layout.which], seeds])
    left, sizes, _ = np.linalg.svd(design, full_matrices=False)
    left = left[:, sizes > _RANK * sizes[0]]
    return np.eye(len(design)) - left @ left.T, len(design) - left.shape[1]


def _checked(observations: Observations) -> Observations:
    """Sorted by (x, seed)."""
    x, seed = np.asarray(observations.x, float), np.asarray(observations.seed)
    loss_sum, n_tokens = np.asarray(observations.loss_sum, float), np.asarray(observations.n_tokens, float)
    if loss_sum.ndim != 2 or loss_sum.shape != (len(x), len(n_tokens)) or len(seed) != len(x) or not loss_sum.size:
        raise UserError(f"losses are {loss_sum.shape} for {len(x)} trials, {len(seed)} seeds and {len(n_tokens)} documents")
    if not (np.isfinite(x).all() and np.isfinite(loss_sum).all() and np.isfinite(n_tokens).all() and (n_tokens > 0).all()):
        raise UserError("losses, x and numbers of tokens must be finite, and every document needs a token")
    order = np.lexsort((seed, x))
    return Observations(x[order], seed[order], loss_sum[order], n_tokens)
