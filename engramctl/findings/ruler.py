"""RULER's categories by length, for trials that match in compute or in loss (paper, 5: iso-FLOPs and iso-loss)."""

from collections.abc import Mapping

import pandas as pd

from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import finished

FLOPS, LOSS = "equal FLOPs", "equal loss"
LOSS_TOLERANCE = 0.02
"""Nats per token by which trials of equal loss may differ: about as much as two seeds do."""


def matched_categories(scores: pd.DataFrame, sweep: SweepResults) -> dict[str, pd.DataFrame]:
    """RULER's categories for those of a sweep's finished trials and extensions that may be compared (`matched`); empty without any."""
    if scores.empty:
        return {}
    return matched(category_scores(scores, finished(sweep.wanted), sweep.store.extension_sources()))


def category_scores(scores: pd.DataFrame, trials: pd.DataFrame, sources: Mapping[str, str]) -> pd.DataFrame:
    """Mean score in each of RULER's categories, one row per model, category and length.

    Args:
        scores: from `ScoreStore.read`.
        trials: `trial_id`, `budget_flops` and `val_loss` of the finished trials.
        sources: the trial that an extension started from, by the extension's id.

    Columns: trial_id, source_id, extended, size, variant, budget_flops, rho, seed, val_loss, max_length, category, length, score, floor;
    `floor` is the score of an echo. Where a task was scored with several settings, the latest score counts.
    """
    from engram.evaluation.ruler import CATEGORIES

    of_task = {task: category for category, tasks in CATEGORIES.items() for task in tasks}
    rows = scores[scores["length"].notna() & ~scores["is_group"] & scores["task"].isin(of_task)]
    rows = rows.sort_values("finished_at").drop_duplicates(["trial_id", "task", "length"], keep="last")
    losses = trials.set_index("trial_id")
    rows = rows.assign(source_id=rows["trial_id"].map(lambda one: sources.get(one, one)), category=rows["task"].map(of_task))
    rows = rows[rows["source_id"].isin(losses.index)]
    rows = rows.assign(
        extended=rows["trial_id"] != rows["source_id"],
        val_loss=rows["source_id"].map(losses["val_loss"]),
        budget_flops=rows["source_id"].map(losses["budget_flops"]),
    )
    key = ["trial_id", "source_id", "extended", "size", "variant", "budget_flops", "rho", "seed", "val_loss", "max_length"]
    means = rows.groupby([*key, "category", "length"], sort=False, dropna=False)[["score", "floor"]].mean().reset_index()
    means["length"] = means["length"].astype(int)
    return means


def matched(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of `category_scores` that may be compared: at equal FLOPs, and at equal loss.

    Equal FLOPs: the budget with the most values of rho, the largest one in a tie. Equal loss: for every rho, the budget whose mean loss
    is nearest to that of the largest rho at its largest budget, if within LOSS_TOLERANCE. Comparisons with a single rho are left out.
    """
    found: dict[str, pd.DataFrame] = {}
    if rows.empty:
        return found
    rhos = rows.groupby(["size", "variant", "budget_flops"])["rho"].nunique().reset_index()
    size, variant, budget, _ = rhos.sort_values(["rho", "budget_flops"]).iloc[-1]
    series = rows[(rows["size"] == size) & (rows["variant"] == variant)]
    flops = series[series["budget_flops"] == budget]
    if flops["rho"].nunique() > 1:
        found[FLOPS] = flops
    losses = series.drop_duplicates("source_id").groupby(["rho", "budget_flops"])["val_loss"].mean().reset_index()
    reference = losses[losses["rho"] == losses["rho"].max()].sort_values("budget_flops").iloc[-1]
    losses = losses.assign(off=(losses["val_loss"] - reference["val_loss"]).abs()).sort_values("off")
    nearest = losses.drop_duplicates("rho")
    nearest = nearest[nearest["off"] <= LOSS_TOLERANCE]
    chosen = series.merge(nearest[["rho", "budget_flops"]], on=["rho", "budget_flops"])
    if chosen["rho"].nunique() > 1 and chosen["budget_flops"].nunique() > 1:
        found[LOSS] = chosen
    return found
