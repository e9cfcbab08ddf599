"""The table of a sweep's trials: statuses, key columns, and how it divides into series and variants."""

from typing import NamedTuple

import pandas as pd

FINISHED, DIVERGED, FAILED, MISSING = "finished", "diverged", "failed", "missing"
"""Statuses of a trial; a missing one has no row."""

SERIES = ["size", "budget_flops", "variant"]
"""Columns that identify a series: one curve over rho."""
IDENTITY = ["trial_id", "size", "budget_flops", "variant", "rho", "seed"]
"""Columns that the manifest has of a trial."""
FINDING_COLUMNS = [
    *IDENTITY, "sweep", "status", "error", "axes", "val_loss", "p_total", "p_sparse", "p_engram", "n_slots", "n_routed_experts",
    "wall_s", "corpus_fingerprint", "tokenizer_fingerprint",
]  # fmt: skip
"""Columns of the trials table that findings and figures need."""


class Series(NamedTuple):
    """What identifies a curve: values of the columns SERIES."""

    size: str
    budget_flops: float
    variant: str


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have a loss."""
    return trials[trials["status"] == FINISHED]


def of_series(trials: pd.DataFrame, series: Series) -> pd.DataFrame:
    """The trials of one series."""
    return trials[(trials["size"] == series.size) & (trials["budget_flops"] == series.budget_flops) & (trials["variant"] == series.variant)]


def variant_order(trials: pd.DataFrame) -> list[str]:
    """Variants in the order of the sweep's axes; the others are compared with the first."""
    return list(dict.fromkeys(trials["variant"]))


def series_order(trials: pd.DataFrame) -> list[Series]:
    """Every series of the trials, sorted by parameters, size, budget and the order of the variants."""
    weight = trials.groupby("size")["p_total"].min().to_dict()
    place = {variant: i for i, variant in enumerate(variant_order(trials))}
    keys = {Series(*key) for key in zip(*(trials[name] for name in SERIES), strict=True)}
    # A size without a single row, whose number of parameters is unknown, comes last.
    return sorted(keys, key=lambda key: (weight[key.size] if weight[key.size] == weight[key.size] else 1e30, *key[:2], place[key.variant]))


def missing_slots(trials: pd.DataFrame, missing: pd.DataFrame) -> list[int]:
    """Slots of trials without a row, worked out from their rho and from the experts and the parameters per slot of trials with one."""
    slots = []
    for size, variant, rho in zip(missing["size"], missing["variant"], missing["rho"], strict=True):
        like = trials[(trials["size"] == size) & (trials["variant"] == variant) & (trials["n_slots"] > 0)]
        same = like[like["rho"] == rho]
        if rho == 1 or like.empty:
            slots.append(0)
        elif len(same):
            slots.append(int(same["n_slots"].iloc[0]))
        else:
            one = like.iloc[0]
            memory = (one["p_sparse"] - one["p_engram"]) * (1 / rho - 1)
            slots.append(round(memory * one["n_slots"] / one["p_engram"]))
    return slots
