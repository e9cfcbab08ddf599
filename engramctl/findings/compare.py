"""Two trials, or two sweeps, compared on the same validation documents: which is better, and how certain that is."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engram.errors import UserError
from engramctl.findings.document_losses import document_losses, require_same_text
from engramctl.present.format import format_flops, format_rho, plain
from engramctl.results.store import Store
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_ids import find_trial
from engramctl.results.trial_table import FAILED, FINISHED, IDENTITY, SERIES

if TYPE_CHECKING:
    from engram.fitting.results import PairedDifference

_COLUMNS = [*IDENTITY, "sweep", "status", "val_loss", "corpus_fingerprint", "tokenizer_fingerprint"]
_POINT = ["size", "budget_flops", "rho"]


@dataclass(frozen=True)
class Point:
    """The pairs at one size, budget and rho."""

    size: str
    budget_flops: float
    variant: str
    """Empty where trials were paired regardless of their variants."""
    rho: float
    loss_a: float
    """Mean over the pairs, nats per token."""
    loss_b: float
    paired: "PairedDifference"


@dataclass(frozen=True)
class SweepComparison:
    """Sweep A against sweep B."""

    points: list[Point]
    """Sorted by size, budget, variant and rho."""
    overall: "PairedDifference"
    """Over all points. Its pairs are the seeds, each with the mean over its points: trials of the same seed are not independent."""
    n_pairs: int
    """Pairs of trials."""
    unpaired_a: list[str]
    """Ids of finished trials of A that have no partner in B."""
    unpaired_b: list[str]


@dataclass(frozen=True)
class TrialComparison:
    """Trial A against trial B."""

    a: dict[str, Any]
    """Row of A: identity, sweep and val_loss."""
    b: dict[str, Any]
    paired: "PairedDifference"


def compare_trials(results: Path, a: str, b: str) -> TrialComparison:
    """Compare two finished trials, named SWEEP/TRIAL.

    Raises UserError when there is no such trial, one has not finished, or they were not validated on the same text.
    """
    from engram.fitting.paired import compare_pairs

    (store_a, row_a), (store_b, row_b) = _one_trial(results, a), _one_trial(results, b)
    require_same_text(pd.DataFrame([row_a, row_b]))
    losses = document_losses([(store_a, row_a["trial_id"]), (store_b, row_b["trial_id"])])
    return TrialComparison(row_a, row_b, compare_pairs(losses.loss_sum[:1], losses.loss_sum[1:], losses.n_tokens))


def _one_trial(results: Path, name: str) -> tuple[Store, dict[str, Any]]:
    sweep, _, typed = name.partition("/")
    opened = SweepResults.open(results, sweep, _COLUMNS)
    rows = pd.concat([opened.trials, opened.left_out], ignore_index=True)
    trial_id = find_trial(typed, rows["trial_id"], sweep)
    row = {str(name): plain(value) for name, value in rows[rows["trial_id"] == trial_id].to_dict("records")[0].items()}
    if row["status"] != FINISHED:
        raise UserError(f"trial {sweep}/{trial_id} has no loss: it {'has ' if row['status'] == FAILED else ''}{row['status']}")
    return opened.store, row


def compare_sweeps(results: Path, a: str, b: str) -> SweepComparison:
    """Compare the finished trials of two sweeps that have the same size, budget, rho and seed.

    The variant is ignored unless one of the sweeps has several.

    Raises UserError when nothing matches, a trial has several partners, or the text is not the same.
    """
    from engram.fitting.paired import compare_pairs

    sweeps = [SweepResults.open(results, name, _COLUMNS) for name in (a, b)]
    one, two = (_finished(sweep) for sweep in sweeps)
    several = one["variant"].nunique() > 1 or two["variant"].nunique() > 1
    point = [*SERIES, "rho"] if several else _POINT
    for trials in (one, two):
        _require_no_twins(trials, [*point, "seed"])
    pairs = one.merge(two, on=[*point, "seed"], suffixes=("_a", "_b")).sort_values([*point, "seed"], ignore_index=True)
    if pairs.empty:
        what = "size, budget, variant, rho and seed" if several else "size, budget, rho and seed"
        raise UserError(f"no trial of {a} and {b} has the same {what}: {_outline(one)} in {a}, {_outline(two)} in {b}")
    ids_a, ids_b = pairs["trial_id_a"], pairs["trial_id_b"]
    require_same_text(pd.concat([one[one["trial_id"].isin(ids_a)], two[two["trial_id"].isin(ids_b)]], ignore_index=True))
    losses = document_losses([(sweeps[0].store, i) for i in ids_a] + [(sweeps[1].store, i) for i in ids_b])
    sums_a, sums_b = losses.loss_sum[: len(pairs)], losses.loss_sum[len(pairs) :]
    points = []
    for _, group in pairs.groupby(point):
        first = group.iloc[0]
        points.append(
            Point(
                size=first["size"],
                budget_flops=float(first["budget_flops"]),
                variant=first["variant"] if several else "",
                rho=float(first["rho"]),
                loss_a=float(group["val_loss_a"].mean()),
                loss_b=float(group["val_loss_b"].mean()),
                paired=compare_pairs(sums_a[group.index], sums_b[group.index], losses.n_tokens),
            )
        )
    of_seed = [group.index for _, group in pairs.groupby("seed")]
    by_seed = [np.stack([sums[index].mean(axis=0) for index in of_seed]) for sums in (sums_a, sums_b)]
    return SweepComparison(
        points=points,
        overall=compare_pairs(by_seed[0], by_seed[1], losses.n_tokens),
        n_pairs=len(pairs),
        unpaired_a=one.loc[~one["trial_id"].isin(ids_a), "trial_id"].tolist(),
        unpaired_b=two.loc[~two["trial_id"].isin(ids_b), "trial_id"].tolist(),
    )


def _finished(sweep: SweepResults) -> pd.DataFrame:
    if sweep.finished.empty:
        raise UserError(f"sweep {sweep.name} has no finished trial")
    return sweep.finished


def _require_no_twins(trials: pd.DataFrame, key: list[str]) -> None:
    twins = trials[trials.duplicated(key, keep=False)]
    if len(twins):
        first = twins.iloc[0]
        where = f"size {first['size']}, budget {format_flops(first['budget_flops'])}, rho {format_rho(first['rho'])}, seed {first['seed']}"
        raise UserError(f"sweep {first['sweep']} has several finished trials at {where}: a pair needs one; compare trials, SWEEP/TRIAL")


def _outline(trials: pd.DataFrame) -> str:
    """Sizes, budgets, rhos and variants of a sweep, short enough for a line."""
    points = list(dict.fromkeys(f"{size} at {format_flops(b)}" for size, b in zip(trials["size"], trials["budget_flops"], strict=True)))
    rhos = sorted({format_rho(rho) for rho in trials["rho"]})
    variants = [variant for variant in trials["variant"].unique() if variant]
    some = [", ".join(names[:4]) + (" ..." if len(names) > 4 else "") for names in (points, rhos, variants)]
    return f"{some[0]} FLOPs, rho {some[1]}" + (f", variants {some[2]}" if variants else "")
