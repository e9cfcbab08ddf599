"""Scores of a sweep as one comparable table."""

from collections.abc import Collection
from typing import Any

import pandas as pd

_TASK = ["request", "length"]


def comparable(scores: pd.DataFrame, trials: Collection[str]) -> tuple[pd.DataFrame | None, list[str]]:
    """What was asked for of every trial, one row for each task or group and trial, all with the same settings.

    A task that was scored with several settings is taken with those that most trials have, the latest of equals.

    Args:
        scores: of `ScoreStore.read`.
        trials: ids of the trials that matter.

    Returns the rows, None where there are none, and a line for each task of which something was left out.
    """
    rows = asked_for(scores[scores["trial_id"].isin(trials)])
    chosen, lines = [], []
    for _, group in rows.groupby(_TASK, sort=False, dropna=False):
        by_settings = group.groupby("settings").agg(trials=("trial_id", "nunique"), latest=("finished_at", "max"))
        best = by_settings.sort_values(["trials", "latest"]).index[-1]
        chosen.append(group[group["settings"] == best])
        if len(by_settings) > 1:
            lines.append(f"{group['request'].iloc[0]}: scores with other settings are left out; shown: {_told(chosen[-1].iloc[0])}")
    return (pd.concat(chosen, ignore_index=True) if chosen else None), lines


def asked_for(scores: pd.DataFrame) -> pd.DataFrame:
    """The row of what was named on the command line; of a tag of lm-eval, which has no score of its own, its tasks."""
    return scores[(scores["group"] == "") | (scores["task"] == scores["request"])]


def task_label(row: Any) -> str:
    """`mmlu`, `ruler 1024`."""
    return str(row["task"]) + (f" {row['length']:.0f}" if pd.notna(row["length"]) else "")


def _told(row: Any) -> str:
    parts = [f"{row['n']} items", f"{row['fewshot']} examples", f"{row['max_length']} tokens read"]
    return ", ".join(parts)
