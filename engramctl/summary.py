"""The allocation question in numbers: loss against rho for each size and budget, from the table of trials."""

import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engram.errors import UserError

SERIES = ["size", "budget_flops", "variant"]
"""What makes one curve over rho."""
IDENTITY = ["trial_id", "size", "budget_flops", "variant", "rho", "seed"]
"""What the manifest says about a trial."""

SUMMARY_COLUMNS = [
    "size", "budget_flops", "variant", "rho", "n_routed_experts", "n_slots", "seeds", "n_seeds", "val_loss", "val_loss_sd", "val_loss_min",
    "val_loss_max", "delta_rho1", "delta_rho1_seeds", "n_diverged", "n_failed", "is_minimum",
]  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """A sweep's trials against its manifest."""

    trials: pd.DataFrame
    """Rows of the trials that the sweep wants, any status."""
    missing: pd.DataFrame
    """Wanted trials without a row (columns IDENTITY)."""
    left_out: pd.DataFrame
    """Rows that the manifest does not name: of an earlier version of the sweep. To mix them in would compare different configs."""


def coverage(trials: pd.DataFrame, manifest: Mapping[str, Any] | None) -> Coverage:
    """Sort the rows of `read_trials` by what the manifest wants; without a manifest every row is wanted."""
    if manifest is None or "trials" not in manifest:
        return Coverage(trials, pd.DataFrame(columns=IDENTITY), trials.iloc[:0])
    wanted = pd.DataFrame(manifest["trials"], columns=IDENTITY)
    known = trials["trial_id"].isin(wanted["trial_id"])
    missing = wanted[~wanted["trial_id"].isin(trials["trial_id"])]
    return Coverage(trials[known].reset_index(drop=True), missing.reset_index(drop=True), trials[~known].reset_index(drop=True))


def require_one_trial_each(trials: pd.DataFrame) -> None:
    """UserError when a (size, budget, variant, rho, seed) has several finished trials: the sweep varies something else too."""
    done = trials[trials["status"] == "finished"]
    key = [*SERIES, "rho", "seed"]
    twins = done[done.duplicated(key, keep=False)]
    if twins.empty:
        return
    first = twins.iloc[0]
    group = twins[(twins[key] == first[key]).all(axis=1)]
    config = ["corpus", "learning_rate", "batch_size", "seq_len", "n_layers", "width", "expert_width", "top_k", "n_routed_experts"]
    config += ["branches", "attention", "memory_design", "memory_dim", "max_ngram", "hash_heads", "optimizer", "schedule"]
    config += ["corpus_fingerprint", "tokenizer_fingerprint", "config"]
    differs = next((c for c in config if group[c].nunique() > 1), "trial_id")
    where = (
        f"size {first['size']}, budget {format_flops(first['budget_flops'])}, {_of_variant(first['variant'])}rho {format_rho(first['rho'])}"
    )
    raise UserError(
        f"sweep {first['sweep']} has {len(group)} finished trials at {where}, seed {first['seed']};"
        f" the allocation figure needs one (they differ in {differs})"
    )


def _of_variant(name: str) -> str:
    return f"variant {name}, " if name else ""


def allocation_summary(trials: pd.DataFrame) -> pd.DataFrame:
    """One row for each (size, budget_flops, variant, rho) that has a trial, ordered by parameters, budget and rho.

    `seeds` are those of the finished trials and `n_seeds` their number; `val_loss` is their mean in nats per token, with
    `val_loss_sd` (n - 1; NaN for one seed), `val_loss_min` and `val_loss_max`. `delta_rho1` is the mean difference to rho = 1 of
    the same size and budget over the `delta_rho1_seeds` seeds that both have (below zero: better than experts alone).
    `is_minimum` marks the lowest mean of each size and budget that has finished trials at two values of rho or more.
    """
    if trials.empty:
        return pd.DataFrame(columns=SUMMARY_COLUMNS)
    weight = trials.groupby("size")["p_total"].min().to_dict()
    # Plain Python from here on: a pandas group for every point is most of the time of a large sweep's figure.
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
                    "n_diverged": sum(trial["status"] == "diverged" for trial in group),
                    "n_failed": sum(trial["status"] == "failed" for trial in group),
                    "is_minimum": rho == lowest,
                }
            )
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _losses(group: list[dict[str, Any]]) -> dict[int, float]:
    """Validation loss by seed, finished trials only, sorted by seed; the mean where a seed has several."""
    by_seed: dict[int, list[float]] = {}
    for trial in group:
        if trial["status"] == "finished":
            by_seed.setdefault(int(trial["seed"]), []).append(float(trial["val_loss"]))
    return {seed: _mean(by_seed[seed]) for seed in sorted(by_seed)}


def _mean(values: Collection[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def remarks(series: pd.DataFrame) -> list[str]:
    """What a reader of one size and budget of `allocation_summary` must know before believing its minimum; a line each."""
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


def unfinished(covered: Coverage) -> pd.DataFrame:
    """Trials without a loss: IDENTITY, `status` (missing, diverged or failed) and `error`, in that order of status."""
    rows = covered.trials[covered.trials["status"] != "finished"][[*IDENTITY, "status", "error"]]
    absent = covered.missing.assign(status="missing", error=None)[[*IDENTITY, "status", "error"]]
    both = pd.concat([frame.astype(object) for frame in (absent, rows)], ignore_index=True)
    order = both["status"].map({"missing": 0, "diverged": 1, "failed": 2})
    return both.assign(order=order).sort_values(["order", *SERIES, "rho", "seed"]).drop(columns="order").reset_index(drop=True)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts of plain Python values for strict JSON: NaN, infinity and nulls are None."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def format_flops(flops: float) -> str:
    """8.2e+12 -> 8.2e12."""
    mantissa, _, exponent = f"{flops:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def format_rho(rho: float) -> str:
    """Two decimals, more only where they are needed: 0.6 -> 0.60, 0.775 -> 0.775."""
    return f"{rho:.2f}" if math.isclose(rho, round(rho, 2), abs_tol=1e-9) else f"{rho:.4g}"
