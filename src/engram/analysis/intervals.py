"""Intervals of means over tokens, by resampling documents: the tokens of a document stay together."""

from dataclasses import dataclass

import numpy as np

from engram.fitting.bootstrap import resample_documents

REPLICATES = 1000


@dataclass(frozen=True, eq=False)
class Estimates:
    """Numbers with 95 % intervals (percentile bootstrap over documents), as arrays of one shape; NaN where there is none."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, estimate: np.ndarray, replicates: np.ndarray) -> "Estimates":
        """From an estimate [...] and its replicates [R, ...]."""
        low, high = np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
        known = np.isfinite(estimate) & np.isfinite(replicates).any(axis=0)
        if known.any():
            low[known], high[known] = np.nanquantile(replicates[:, known], [0.025, 0.975], axis=0)
        return cls(estimate, low, high)


@dataclass(frozen=True, eq=False)
class Means:
    """Means, and the same means over resampled documents."""

    mean: np.ndarray
    """[C]"""
    replicates: np.ndarray
    """[R, C]; NaN where a replicate has no token"""

    def estimates(self) -> Estimates:
        return Estimates.of(self.mean, self.replicates)


class DocumentBootstrap:
    """Means over tokens; every call draws the same documents, so that results are paired.

    Args:
        document: int64 [N], the document of each token.
        replicates: R.
        seed: of the draws.
    """

    def __init__(self, document: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> None:
        ids, self.place = np.unique(document, return_inverse=True)
        self.n_documents, self.replicates, self.seed = len(ids), replicates, seed

    def means(self, values: np.ndarray, chosen: np.ndarray | None = None) -> Means:
        """Means of values [C, N] over all tokens, or over those of the mask bool [N]: NaN where there is none.

        With tokens of fewer than two documents, the replicates are NaN: one document says nothing about others.
        """
        place, values = (self.place, values) if chosen is None else (self.place[chosen], values[:, chosen])
        counts = np.bincount(place, minlength=self.n_documents).astype(float)
        sums = np.stack([np.bincount(place, weights=row, minlength=self.n_documents) for row in values])  # [C, D]
        with np.errstate(invalid="ignore"):
            mean = sums.sum(axis=1) / counts.sum()
            drawn = resample_documents(sums, counts, self.replicates, self.seed)
        return Means(mean, drawn if (counts > 0).sum() > 1 else np.full_like(drawn, np.nan))
