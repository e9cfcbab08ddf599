"""What memory adds to a fixed backbone: the loss without any, and the gain from the largest memory."""

from dataclasses import dataclass

from engramctl.findings.losses import Losses, SeedDifferences
from engramctl.results.trial_table import Series


@dataclass(frozen=True)
class NoMemory:
    """The backbone alone."""

    losses: dict[int, float]
    """By seed, nats per token."""
    loss: float
    difference: SeedDifferences | None
    """From the mean over those memory sizes of the sweep's first variant that have all its seeds; None without any."""


@dataclass(frozen=True)
class MemoryGain:
    """The largest memory of a variant against the backbone alone."""

    n_slots: int
    difference: SeedDifferences | None
    """Below zero: memory helps."""


def no_memory(losses: Losses, first: str) -> NoMemory | None:
    """The trials at 0 slots, whatever their variant; None without a finished one."""
    trials = losses.trials
    none = (trials["n_slots"] == 0).to_numpy()
    if not none.any():
        return None
    mine = (trials["variant"] == first).to_numpy() & ~none
    groups = [mine & (trials["n_slots"] == slots).to_numpy() for slots in sorted(trials.loc[mine, "n_slots"].unique())]
    by_seed = losses.by_seed(none)
    # The comparison uses only seeds that all groups share, so groups that lack one are left out.
    groups = [group for group in groups if by_seed.keys() <= losses.by_seed(group).keys()]
    return NoMemory(by_seed, sum(by_seed.values()) / len(by_seed), losses.difference(none, groups))


def largest_gain(losses: Losses, series: Series) -> MemoryGain | None:
    """The gain of a series; None where its variant has no finished trial with memory, or no trial without memory has finished."""
    trials = losses.trials
    none = (trials["n_slots"] == 0).to_numpy()
    mine = (trials["variant"] == series.variant).to_numpy() & ~none
    if not (none.any() and mine.any()):
        return None
    most = int(trials.loc[mine, "n_slots"].max())
    return MemoryGain(most, losses.difference(mine & (trials["n_slots"] == most).to_numpy(), [none]))
