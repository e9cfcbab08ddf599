"""A sweep's scores as one table in which they can be compared."""

from collections.abc import Collection
from typing import Any

import pandas as pd

_TASK = ["request", "length"]


def comparable(scores: pd.DataFrame, trials: Collection[str]) -> tuple[pd.DataFrame | None, list[str]]:
    """The scores that were asked for, one row per trial and task or group, each task with the same settings for all trials.

    Where a task was scored with several settings, those that most trials have are taken, the latest in a tie.

    Args:
        scores: from `ScoreStore.read`.
        trials: ids of the trials that matter.

    Returns the rows, None if there are none, and a line for each task of which scores were left out.
    """
    rows = asked_for(scores[scores["trial_id"].isin(trials)])
    chosen, lines = [], []
    for _, group in rows.groupby(_TASK, sort=False, dropna=False):
        by_settings = group.groupby("settings").agg(trials=("trial_id", "nunique"), latest=("finished_at", "max"))
        best = by_settings.sort_values(["trials", "latest"]).index[-1]
        chosen.append(group[group["settings"] == best])
        if len(by_settings) > 1:
            lines.append(f"{group['request'].iloc[0]}: scores with other settings are left out; shown: {_settings(chosen[-1].iloc[0])}")
    return (pd.concat(chosen, ignore_index=True) if chosen else None), lines


def asked_for(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of what was named on the command line; for an lm-eval tag, which has no score of its own, those of its tasks."""
    return scores[(scores["group"] == "") | (scores["task"] == scores["request"])]


def task_label(row: Any) -> str:
    """`mmlu`, `ruler 1024`."""
    return str(row["task"]) + (f" {row['length']:.0f}" if pd.notna(row["length"]) else "")


def _settings(row: Any) -> str:
    return f"{row['n']} items, {row['fewshot']} examples, {row['max_length']} tokens read"
