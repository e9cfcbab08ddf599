"""The allocation question in numbers: loss against rho for each size, budget and variant, from the table of trials."""

import math
import statistics
from collections.abc import Collection
from typing import Any

import pandas as pd

from engramctl.present.format import format_rho
from engramctl.results.trial_table import DIVERGED, FAILED, FINISHED, SERIES

SUMMARY_COLUMNS = [
    "size", "budget_flops", "variant", "rho", "n_routed_experts", "n_slots", "seeds", "n_seeds", "val_loss", "val_loss_sd", "val_loss_min",
    "val_loss_max", "delta_rho1", "delta_rho1_seeds", "n_diverged", "n_failed", "is_minimum",
]  # fmt: skip


def allocation_summary(trials: pd.DataFrame) -> pd.DataFrame:
    """One row for each (size, budget_flops, variant, rho) that has a trial, sorted by parameters, budget, variant and rho.

    `seeds` are those of the finished trials and `n_seeds` is their number; `val_loss` is their mean in nats per token, with
    `val_loss_sd` (n - 1; NaN for one seed), `val_loss_min` and `val_loss_max`. `delta_rho1` is the mean difference from rho = 1 of
    the same series over the `delta_rho1_seeds` seeds that both have (below zero: better than experts alone). `is_minimum` marks the
    lowest mean of each series that has finished trials at two or more values of rho.
    """
    if trials.empty:
        return pd.DataFrame(columns=SUMMARY_COLUMNS)
    weight = trials.groupby("size")["p_total"].min().to_dict()
    # Plain Python from here on: a pandas group per point would take most of the time of drawing a large sweep.
    series: dict[tuple[str, float, str], dict[float, list[dict[str, Any]]]] = {}
    columns = [*SERIES, "rho", "seed", "status", "val_loss", "n_routed_experts", "n_slots"]
    for trial in trials[columns].to_dict("records"):
        series.setdefault(tuple(trial[name] for name in SERIES), {}).setdefault(trial["rho"], []).append(trial)  # type: ignore[arg-type]
    rows = []
    for key, points in sorted(series.items(), key=lambda item: (weight[item[0][0]], *item[0])):
        losses = {rho: _losses(points[rho]) for rho in sorted(points)}
        reference = losses.get(1.0, {})
        means = {rho: _mean(loss.values()) for rho, loss in losses.items() if loss}
        lowest = min(means, key=means.__getitem__) if len(means) > 1 else None
        for rho, loss in losses.items():
            group, values = points[rho], list(loss.values())
            delta = [loss[seed] - reference[seed] for seed in loss if seed in reference]
            rows.append(
                {
                    "size": key[0],
                    "budget_flops": key[1],
                    "variant": key[2],
                    "rho": rho,
                    "n_routed_experts": int(group[0]["n_routed_experts"]),
                    "n_slots": int(group[0]["n_slots"]),
                    "seeds": list(loss),
                    "n_seeds": len(loss),
                    "val_loss": _mean(values),
                    "val_loss_sd": statistics.stdev(values) if len(values) > 1 else math.nan,
                    "val_loss_min": min(values, default=math.nan),
                    "val_loss_max": max(values, default=math.nan),
                    "delta_rho1": _mean(delta),
                    "delta_rho1_seeds": len(delta),
                    "n_diverged": sum(trial["status"] == DIVERGED for trial in group),
                    "n_failed": sum(trial["status"] == FAILED for trial in group),
                    "is_minimum": rho == lowest,
                }
            )
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _losses(group: list[dict[str, Any]]) -> dict[int, float]:
    """Validation loss of finished trials by seed, sorted; the mean where a seed has several."""
    by_seed: dict[int, list[float]] = {}
    for trial in group:
        if trial["status"] == FINISHED:
            by_seed.setdefault(int(trial["seed"]), []).append(float(trial["val_loss"]))
    return {seed: _mean(by_seed[seed]) for seed in sorted(by_seed)}


def _mean(values: Collection[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def remarks(series: pd.DataFrame) -> list[str]:
    """What a reader must know before trusting the minimum of one series of `allocation_summary`, a line each."""
    done = series[series["n_seeds"] > 0].sort_values("rho")
    if done.empty:
        return ["no finished trial"]
    lines = []
    low, high = done["rho"].iloc[0], done["rho"].iloc[-1]
    if len(done) == 1:
        lines.append(f"only rho = {format_rho(low)} has finished trials: there is no curve")
    elif (best := done.loc[done["is_minimum"], "rho"].iloc[0]) in (low, high):
        span = f"{format_rho(low)} to {format_rho(high)}"
        lines.append(f"no interior minimum shown: lowest mean at rho = {format_rho(best)}, an end of {span}")
    if done["n_seeds"].max() == 1:
        lines.append("one seed: differences between neighbours may be noise")
    if len({tuple(seeds) for seeds in done["seeds"]}) > 1:
        lines.append("not every rho has the same seeds: compare the means with care")
    return lines
