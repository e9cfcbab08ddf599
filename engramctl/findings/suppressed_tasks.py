"""Benchmarks with the memory on and off: what each of them retains without it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engramctl.cluster.scoring_worker import evaluate_request
from engramctl.present.format import trial_name
from engramctl.results.rows.analysis import columns_of
from engramctl.results.score_requests import Request

if TYPE_CHECKING:
    from engram.config.trial import TrialConfig
    from engram.evaluation.adapter import EngramLM
    from engram.evaluation.run import TaskResult
    from engramctl.results.parquet import Columns

_REPLICATES = 1000


def task_columns(trial: "TrialConfig", requests: Sequence[Request], lm: "EngramLM", say: Callable[[str], None]) -> "Columns":
    """Score every request with the memory on and off: one row per task and group.

    Args:
        trial: the model's trial.
        requests: what to score.
        lm: the model.
        say: called with a line about what is being scored.

    Raises UserError for a task that can't be had.
    """
    known = {"trial_id": trial.id, "model": trial_name(trial), "max_length": lm.max_length}
    return columns_of("suppress_tasks", ({**known, **row} for request in requests for row in _rows(request, lm, say)))


def _rows(request: Request, lm: "EngramLM", say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    from engram.analysis.suppression import suppressed

    say(f"{request.name} with the memory on and off ...")
    on = evaluate_request(request, lm).results
    with suppressed(lm.model):
        off = evaluate_request(request, lm).results
    for a, b in zip(on, off, strict=True):
        low, high = _interval(_item_scores(a, on), _item_scores(b, off))
        yield {
            "task": a.task,
            "group": a.group,
            "is_group": a.is_group,
            "metric": a.metric,
            "score_on": a.score,
            "stderr_on": a.stderr,
            "score_off": b.score,
            "stderr_off": b.stderr,
            "retained": b.score / a.score if a.score else None,
            "retained_low": low,
            "retained_high": high,
            "chance": a.chance,
            "bpb_on": a.bpb,
            "bpb_off": b.bpb,
            "n": a.n,
            "limit": request.settings.limit,
        }


def _item_scores(result: "TaskResult", all_results: "Sequence[TaskResult]") -> np.ndarray:
    """Scores of the items of a task, or of all tasks in a group; empty if their mean is not its score."""
    below = [result]
    for one in all_results:  # groups come before their members
        if one.group and one.group in {parent.task for parent in below if parent.is_group}:
            below.append(one)
    items = [item.scores.get(f"{result.metric},{result.filter}") for one in below for item in one.items]
    scores = np.array([np.nan if score is None else score for score in items], dtype=float)
    return scores if len(scores) and np.isclose(scores.mean(), result.score) else scores[:0]


def _interval(on: np.ndarray, off: np.ndarray) -> tuple[float | None, float | None]:
    """Bootstrap interval (percentiles) of the ratio of the means, with the same items drawn for both."""
    if not len(on) or len(on) != len(off):
        return None, None
    drawn = np.random.default_rng(0).multinomial(len(on), np.full(len(on), 1 / len(on)), size=_REPLICATES)  # [R, items]
    below = drawn @ on
    ratio = (drawn @ off)[below != 0] / below[below != 0]
    if len(ratio) < 0.95 * _REPLICATES:  # too often the score with memory is 0
        return None, None
    low, high = np.quantile(ratio, [0.025, 0.975])
    return float(low), float(high)


def shown_tasks(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of what was asked for and of the groups in it; a group's single tasks are only in the table on disk."""
    return frame[(frame["group"] == "") | frame["is_group"]]


def at_chance(frame: pd.DataFrame) -> list[str]:
    """Tasks whose score with the memory on is less than two standard errors above a guess: what they retain means nothing."""
    near = shown_tasks(frame)
    near = near[near["score_on"] - near["chance"].fillna(float("-inf")) < 2 * near["stderr_on"].fillna(0)]
    return list(near["task"])
