"""What would settle the curves that are open: further seeds, at which rhos of which series, and what they cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from engramctl.results.trial_table import Series, finished, of_series

if TYPE_CHECKING:
    from engram.fitting.results import AllocationFit


@dataclass(frozen=True)
class Advice:
    """Seeds that would probably settle the verdict of one series."""

    series: Series
    further_seeds: int
    """Seeds to add at each of `rhos`."""
    rhos: tuple[float, ...]
    seeds: int
    """`--seeds` that asks for them."""
    trials: int
    """Trials that they come to."""
    seconds: float
    """Training time of these trials, one after the other, as long as those of the series took; NaN if that isn't known."""


def advice(trials: pd.DataFrame, fits: Mapping[Series, "AllocationFit"]) -> list[Advice]:
    """What would settle each open series, cheapest first.

    Args:
        trials: the wanted trials of the sweep (FINDING_COLUMNS).
        fits: fits over rho by series.
    """
    found = []
    for series, fit in fits.items():
        if not fit.verdict.further_seeds:
            continue
        mine = of_series(trials, series)
        chosen = mine[mine["rho"].isin(fit.verdict.further_rhos)]
        seeds = int(chosen["seed"].max()) + 1 + fit.verdict.further_seeds
        have = chosen[["rho", "seed"]].drop_duplicates().groupby("rho").size()
        missing = sum(seeds - have.get(rho, 0) for rho in fit.verdict.further_rhos)
        each = finished(mine)["wall_s"].astype(float).mean()
        found.append(Advice(series, fit.verdict.further_seeds, fit.verdict.further_rhos, seeds, int(missing), float(missing * each)))
    return sorted(found, key=lambda one: (math.isnan(one.seconds), one.seconds, one.trials))
