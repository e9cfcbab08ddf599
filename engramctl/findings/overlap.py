"""Do documents that training has something of answer differently from those of which it has nothing?

Memory recalls what it has seen word for word, so text that stands in training, even in part, can make it look better than it is.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engramctl.findings.losses import Losses

if TYPE_CHECKING:
    from engram.fitting.results import AllocationFit, Interval

OVERLAPPING = 0.02
"""Share of a document's tokens in a 32-gram of training above which it counts as overlapping."""
_FEWEST = 12
"""Documents below which a group shows nothing."""
_REPLICATES = 2000
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class OverlapFits:
    """A curve over rho on clean and on overlapping documents, whose gains differ."""

    clean: "AllocationFit"
    overlapping: "AllocationFit"
    n_clean: int
    n_overlapping: int
    difference: "Interval"
    """Gain on overlapping documents less that on clean ones, at one rho for both, nats per token."""

    @property
    def text(self) -> str:
        """In words."""
        groups = ((self.n_clean, "clean", self.clean), (self.n_overlapping, "overlapping", self.overlapping))
        each = " and ".join(
            f"{fit.gain.estimate:.3f} ({fit.gain.low:.3f} to {fit.gain.high:.3f}) with rho* at {fit.rho_star.estimate:.2f}"
            f" ({fit.rho_star.low:.2f} to {fit.rho_star.high:.2f}) on the {n} {name} ones"
            for n, name, fit in groups
        )
        more = self.difference
        size = f"{more.estimate:+.3f} nats ({more.low:+.3f} to {more.high:+.3f})"
        return f"Documents that share text with training gain {size} more from memory: the gain is {each}."


def fit_by_overlap(losses: Losses, chosen: np.ndarray, rho_star: float, margin: float) -> OverlapFits | None:
    """Fits on clean and overlapping documents apart, if their gains differ; None if they don't, or if too few are of one kind.

    Args:
        losses: of all trials of a size and budget.
        chosen: the trials of one series, bool [n].
        rho_star: where the curve on all documents is lowest; the gain at the measured rho next to it is compared.
        margin: of the fits (`engram.fitting.optimum`).
    """
    from engram.fitting.optimum import fit_allocation

    overlapping, clean = losses.overlap > OVERLAPPING, losses.overlap <= OVERLAPPING
    if min(clean.sum(), overlapping.sum()) < _FEWEST:
        return None
    difference = _difference(losses, chosen, rho_star, clean, overlapping)
    if difference is None or difference.low <= 0 <= difference.high:
        return None
    of_clean, of_overlapping = (
        fit_allocation(losses.observations(chosen, "rho", documents), margin=margin) for documents in (clean, overlapping)
    )
    return OverlapFits(of_clean, of_overlapping, int(clean.sum()), int(overlapping.sum()), difference)


def _difference(losses: Losses, chosen: np.ndarray, rho_star: float, clean: np.ndarray, overlapping: np.ndarray) -> "Interval | None":
    """Gain on overlapping documents less that on clean ones; the same trials make both, so documents alone are drawn again."""
    from engram.fitting.bootstrap import resample_documents
    from engram.fitting.results import Interval

    rho = losses.trials["rho"].to_numpy(dtype=float)
    here = np.unique(rho[chosen])
    if here[-1] != 1 or len(here) < 2:
        return None
    near = here[:-1][np.abs(here[:-1] - rho_star).argmin()]
    gain = losses.all.loss_sum[chosen & (rho == 1)].mean(axis=0) - losses.all.loss_sum[chosen & (rho == near)].mean(axis=0)  # [D]
    tokens = losses.all.n_tokens
    # Seeds of their own: two groups of one size would have the same documents drawn
    draws = [resample_documents(gain[None, kept], tokens[kept], _REPLICATES, seed)[:, 0] for seed, kept in enumerate((clean, overlapping))]
    estimate = float(gain[overlapping].sum() / tokens[overlapping].sum() - gain[clean].sum() / tokens[clean].sum())
    low, high = np.quantile(draws[1] - draws[0], _TAILS)
    return Interval(estimate, float(low), float(high))
