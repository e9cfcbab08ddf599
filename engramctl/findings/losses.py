"""Losses of a sweep's trials at one size and budget, and differences between groups of them, paired by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from engram.fitting.results import Observations, PairedDifference
    from engramctl.results.store import Store


@dataclass(frozen=True)
class SeedDifferences:
    """A minus B, for every seed that both have: below zero, A is better."""

    by_seed: dict[int, float]
    """Nats per token."""
    paired: "PairedDifference"


class Losses:
    """Losses of the finished trials of one size and budget on every document; groups of trials are chosen by boolean masks."""

    def __init__(self, store: "Store", trials: pd.DataFrame) -> None:
        """Read the documents of `trials`: at least one, all finished. UserError when they can't be compared."""
        from engramctl.findings.document_losses import observations

        self.trials = trials.reset_index(drop=True)
        self.all, self.overlap = observations(store, self.trials, "rho")
        """Losses on every document, and the documents' overlap with training, [D]."""

    def observations(self, chosen: np.ndarray, x: str, documents: np.ndarray | None = None) -> "Observations":
        """Losses of the chosen trials, with the column `x` of theirs as the observations' x, adjusted for how hard each document is.

        `documents` chooses some of them, bool [D].

        A document that is hard for every trial shifts the whole curve but no difference between its points. That common hardness is
        evened out: otherwise the band around a curve would show the choice of validation text and hide the curve's shape. Differences
        between trials on a document are left as they are, and so is the mean loss of each trial.
        """
        from engram.fitting.results import Observations

        rows = self.trials.loc[chosen]
        kept = np.ones(len(self.all.n_tokens), dtype=bool) if documents is None else documents
        tokens, sums = self.all.n_tokens[kept], self.all.loss_sum[:, kept]
        hardness = sums.mean(axis=0)
        return Observations(
            x=rows[x].to_numpy(dtype=float),
            seed=rows["seed"].to_numpy(dtype=int),
            loss_sum=sums[rows.index] - hardness + tokens * (hardness.sum() / tokens.sum()),
            n_tokens=tokens,
        )

    def by_seed(self, chosen: np.ndarray) -> dict[int, float]:
        """Mean loss of the chosen trials of each seed, nats per token."""
        return {seed: float(sums.sum() / self.all.n_tokens.sum()) for seed, sums in self._sums(chosen).items()}

    def difference(self, a: np.ndarray, others: Sequence[np.ndarray]) -> SeedDifferences | None:
        """Trials `a` minus the mean over the groups `others`, on the seeds that `a` and all of them have; None if there is no such seed.

        The interval is that of `engram.fitting.paired`, which resamples documents, and seeds where there are several.
        """
        from engram.fitting.paired import compare_pairs

        mine, theirs = self._sums(a), [self._sums(group) for group in others]
        seeds = sorted(seed for seed in mine if all(seed in group for group in theirs))
        if not seeds or not theirs:
            return None
        left = np.stack([mine[seed] for seed in seeds])
        right = np.stack([np.mean([group[seed] for group in theirs], axis=0) for seed in seeds])
        each = (left - right).sum(axis=1) / self.all.n_tokens.sum()
        return SeedDifferences(dict(zip(seeds, each.tolist(), strict=True)), compare_pairs(left, right, self.all.n_tokens))

    def _sums(self, chosen: np.ndarray) -> dict[int, np.ndarray]:
        """Loss sums per document, [D], by seed; the mean where several of the chosen trials have the same seed."""
        rows = self.trials.loc[chosen, "seed"]
        return {int(seed): self.all.loss_sum[group.index].mean(axis=0) for seed, group in rows.groupby(rows)}
