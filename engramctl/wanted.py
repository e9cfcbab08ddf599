"""All trials that a sweep wants as one table, the ones without a row among them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from engramctl.axes import combinations
from engramctl.summaries.pairs import Series
from engramctl.summary import IDENTITY, SERIES, Coverage

MISSING = "missing"
"""Status of a trial without a row."""

TRIAL_COLUMNS = [
    *IDENTITY, "sweep", "status", "error", "axes", "val_loss", "p_total", "p_sparse", "p_engram", "n_slots", "n_routed_experts",
    "corpus_fingerprint", "tokenizer_fingerprint",
]  # fmt: skip
"""Columns of the trials table that fits and figures need."""


def is_over_slots(manifest: Mapping[str, Any] | None) -> bool:
    """Whether a sweep varies memory slots on a fixed backbone in place of rho."""
    return bool(manifest and manifest.get("sweep", {}).get("slots"))


def wanted_trials(covered: Coverage, manifest: Mapping[str, Any] | None) -> pd.DataFrame:
    """TRIAL_COLUMNS of every wanted trial in the manifest's order; the ones without a row have status MISSING and few other columns."""
    import json

    labels = {v.name: json.dumps(dict(v.labels)) for v in combinations((manifest or {}).get("sweep", {}).get("axes") or {})}
    known = {**labels, **dict(zip(covered.trials["variant"], covered.trials["axes"], strict=True))}
    missing = covered.missing.assign(status=MISSING, error=None, val_loss=float("nan"))
    missing["axes"] = [known.get(variant, "{}") for variant in missing["variant"]]
    missing["n_slots"] = _missing_slots(covered.trials, missing) if is_over_slots(manifest) else 0
    frames = [frame for frame in (covered.trials[TRIAL_COLUMNS], missing) if len(frame)]
    both = pd.concat(frames, ignore_index=True) if frames else covered.trials[TRIAL_COLUMNS]
    place = {trial["trial_id"]: i for i, trial in enumerate((manifest or {}).get("trials", []))}
    return both.sort_values("trial_id", key=lambda ids: ids.map(place), kind="stable", ignore_index=True) if place else both


def _missing_slots(trials: pd.DataFrame, missing: pd.DataFrame) -> list[int]:
    """Slots of trials without a row, from their rho: the experts and the parameters of a slot are those of the trials that have one."""
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


def variant_order(wanted: pd.DataFrame) -> list[str]:
    """Variants in the order of the sweep's axes; the first is what the others are compared with."""
    return list(dict.fromkeys(wanted["variant"]))


def series_order(wanted: pd.DataFrame) -> list[Series]:
    """Every series that the sweep wants: by parameters, budget and the order of the variants."""
    weight = wanted.groupby("size")["p_total"].min().to_dict()
    place = {variant: i for i, variant in enumerate(variant_order(wanted))}
    keys = {Series(*key) for key in zip(*(wanted[name] for name in SERIES), strict=True)}
    # A size without a single row has no known number of parameters: last.
    return sorted(keys, key=lambda key: (weight[key.size] if weight[key.size] == weight[key.size] else 1e30, *key[:2], place[key.variant]))


def of_series(trials: pd.DataFrame, series: Series) -> pd.DataFrame:
    """The trials of one series."""
    return trials[(trials["size"] == series.size) & (trials["budget_flops"] == series.budget_flops) & (trials["variant"] == series.variant)]


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have a loss."""
    return trials[trials["status"] == "finished"]
