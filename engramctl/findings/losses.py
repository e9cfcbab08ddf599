"""Losses of some of a sweep's trials, and differences between groups of them that share their seeds."""

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
    """A less B, for every seed that both have: below zero, A is better."""

    by_seed: dict[int, float]
    """Nats per token."""
    paired: "PairedDifference"


class Losses:
    """Losses of the finished trials of one size and budget on every document; rows are looked up by trial."""

    def __init__(self, store: "Store", trials: pd.DataFrame) -> None:
        """Read the documents of `trials`, all of them finished, at least one. UserError when they can't be compared."""
        from engramctl.findings.document_losses import observations

        self.trials = trials.reset_index(drop=True)
        self.all = observations(store, self.trials, "rho")

    def observations(self, chosen: np.ndarray, x: str) -> "Observations":
        """Those of the trials chosen by a mask, with a column as their x, and with what all documents have in common taken out.

        How hard a document is for every trial shifts a whole curve and no difference between two of its points: it is evened out, or
        the band around a curve would show the choice of the validation text and hide the curve's shape. Differences between trials on
        a document stay as they are, and so does every trial's mean loss.
        """
        from engram.fitting.results import Observations

        rows = self.trials.loc[chosen]
        tokens = self.all.n_tokens
        hardness = self.all.loss_sum.mean(axis=0)
        return Observations(
            x=rows[x].to_numpy(dtype=float),
            seed=rows["seed"].to_numpy(dtype=int),
            loss_sum=self.all.loss_sum[rows.index] - hardness + tokens * (hardness.sum() / tokens.sum()),
            n_tokens=tokens,
        )

    def by_seed(self, chosen: np.ndarray) -> dict[int, float]:
        """Mean loss of the chosen trials of each seed, nats per token."""
        return {seed: float(sums.sum() / self.all.n_tokens.sum()) for seed, sums in self._sums(chosen).items()}

    def difference(self, a: np.ndarray, others: Sequence[np.ndarray]) -> SeedDifferences | None:
        """Trials `a` less the mean over the groups `others`, over the seeds that a and each of them have; None without such a seed.

        The interval is that of fitting.paired: documents are drawn again, and seeds where there are several.
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
        """Loss sums of each document by seed, [D]; the mean where several of the chosen trials have one seed."""
        rows = self.trials.loc[chosen, "seed"]
        return {int(seed): self.all.loss_sum[group.index].mean(axis=0) for seed, group in rows.groupby(rows)}
