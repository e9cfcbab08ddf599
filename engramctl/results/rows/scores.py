"""Results of a scoring request as columns of its tables."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engramctl.results.schema.scores import EVAL_COLUMNS, EVAL_ITEM_COLUMNS

if TYPE_CHECKING:
    from engram.evaluation.run import TaskResult
    from engramctl.results.parquet import Columns
    from engramctl.results.score_requests import Job


def score_columns(job: "Job", results: "Sequence[TaskResult]", floors: Mapping[str, float], known: Mapping[str, Any]) -> "Columns":
    """One row per result.

    Args:
        job: what was asked for.
        results: what `engram.evaluation.run.evaluate` returned.
        floors: score from 0 to 1 of an answer that echoes the end of its prompt, by task.
        known: the columns of cost and origin, the same in all rows.
    """
    percent = {result.task: _is_percent(result) for result in results if not result.is_group}
    trial, request = job.trial, job.request
    rows = []
    for result in results:
        is_percent = all(percent.values()) if result.is_group else percent[result.task]
        scale = 100.0 if is_percent else 1.0
        floor = _mean_floor(floors) if result.is_group and floors else floors.get(result.task)
        rows.append(
            {
                "trial_id": trial.id,
                "size": trial.size,
                "rho": trial.rho,
                "variant": trial.variant,
                "seed": trial.seed,
                "budget_flops": trial.budget_flops,
                "request": request.task,
                "task": result.task,
                "group": result.group,
                "is_group": result.is_group,
                "length": request.length,
                "metric": result.metric,
                "filter": result.filter,
                "score": _scaled(result.score, scale),
                "stderr": _scaled(result.stderr, scale),
                "is_percent": is_percent,
                "higher_is_better": result.higher_is_better,
                "chance": _scaled(result.chance, scale),
                "floor": _scaled(floor, scale),
                "bpb": _scaled(result.bpb),
                "others": json.dumps(
                    {f"{one.metric},{one.filter}": {"score": _scaled(one.value), "stderr": _scaled(one.stderr)} for one in result.others}
                ),
                "n": result.n,
                "truncated_share": result.truncated_share,
                "fewshot": result.fewshot,
                "limit": request.settings.limit,
                "max_length": job.max_length,
                "version": result.version,
                "settings": job.identity,
                **known,
            }
        )
    return {column.name: [row[column.name] for row in rows] for column in EVAL_COLUMNS}


def item_columns(results: "Sequence[TaskResult]") -> "Columns":
    """One row per item of every task."""
    rows = []
    for result in results:
        scale = 100.0 if _is_percent(result) else 1.0
        for item in result.items:
            score = item.scores.get(f"{result.metric},{result.filter}")
            values = (result.task, item.doc_id, item.doc_hash, _scaled(score, scale), item.bpb, _scaled(item.chance, scale), item.truncated)
            rows.append(values)
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(EVAL_ITEM_COLUMNS)
    return {column.name: list(values) for column, values in zip(EVAL_ITEM_COLUMNS, columns, strict=True)}


def _is_percent(result: "TaskResult") -> bool:
    """Whether every item's score is from 0 to 1 and higher is better, so that the mean reads as a percentage."""
    own = [item.scores.get(f"{result.metric},{result.filter}") for item in result.items]
    return result.higher_is_better and all(score is not None and 0 <= score <= 1 for score in own)


def _mean_floor(floors: Mapping[str, float]) -> float:
    return sum(floors.values()) / len(floors)


def _scaled(value: float | None, scale: float = 1.0) -> float | None:
    return None if value is None or math.isnan(value) else value * scale
