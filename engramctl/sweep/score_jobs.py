"""Which models to score: trials of a sweep, or one checkpoint."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from engram.errors import UserError
from engram.training.checkpoints.files import FINAL
from engram.training.checkpoints.restore import final_folder, read_trial
from engramctl.present.format import format_flops, format_rho
from engramctl.results.checkpoints import home_of
from engramctl.results.score_requests import Job, Request
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import SERIES, finished


def sweep_jobs(
    results: Path,
    sweep: str,
    requests: Sequence[Request],
    *,
    rhos: Collection[float],
    budgets: Collection[float],
    seeds: Collection[int],
    best: bool,
) -> tuple[list[Job], int]:
    """Jobs for a sweep's finished trials, request by request, and the number of chosen trials that have no checkpoint.

    Args:
        results: the results folder.
        sweep: name of the sweep.
        requests: what to score.
        rhos: only trials with these; empty: all.
        budgets: likewise.
        seeds: likewise.
        best: only the trial with the lowest validation loss of each size, budget and variant.

    Raises UserError when there is no such sweep, no such trial, or none has a checkpoint.
    """
    opened = SweepResults.open(results, sweep).require_finished()
    done = finished(opened.wanted)
    for column, option, values, form in (
        ("rho", "--rho", rhos, format_rho),
        ("budget_flops", "--budget", budgets, format_flops),
        ("seed", "--seed", seeds, str),
    ):
        done = _only(done, column, option, values, form, sweep)
    if best:
        done = done.loc[done.groupby(SERIES, sort=False)["val_loss"].idxmin()]
    folders = [opened.store.checkpoints.absolute() / trial_id / FINAL for trial_id in done["trial_id"]]
    trials = {folder: read_trial(folder) for folder in folders if (folder / "trial.json").is_file()}
    if not trials:
        raise UserError(
            f"no checkpoint of the {len(folders)} chosen trials is in {opened.store.checkpoints}: they stay where the sweep was trained; "
            "--checkpoint DIR scores one from elsewhere"
        )
    place = opened.store.folder.absolute()
    return [Job(folder, place, trial, request) for request in requests for folder, trial in trials.items()], len(folders) - len(trials)


def checkpoint_jobs(checkpoint: Path, requests: Sequence[Request]) -> list[Job]:
    """Jobs for one checkpoint; UserError when there is none. A sweep's trial has its scores with the sweep, others with the checkpoint."""
    final = final_folder(checkpoint).absolute()
    trial = read_trial(final)
    folder = home_of(final, trial.id).folder
    return [Job(final, folder, trial, request) for request in requests]


def _only(done: pd.DataFrame, column: str, option: str, values: Collection[float], form: Callable[[Any], str], sweep: str) -> pd.DataFrame:
    """Trials whose `column` is one of `values`, or all if `values` is empty; UserError for a value that no trial has."""
    if not values:
        return done
    there = sorted(done[column].unique())
    found: set[float] = set()
    for value in values:
        # What is printed with few digits is found by them, but never beside what was named exactly.
        near = [one for one in there if one == value] or [one for one in there if abs(one - value) <= 5e-3 * abs(value) + 1e-9]
        if not near:
            raise UserError(f"{option} {value:g}: sweep '{sweep}' has no finished trial of it; it has {', '.join(map(form, there))}")
        found |= set(near)
    return done[done[column].isin(found)]
