"""What a sweep has done: the status of every trial that it wants, and how far unfinished trials have got."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from engram.foreign_files import read_json
from engramctl.results.liveness import Running, read_running
from engramctl.results.store import Store
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import DIVERGED, FAILED, FINISHED, IDENTITY, MISSING

RUNNING = "running"
STATUSES = (FINISHED, DIVERGED, FAILED, RUNNING, MISSING)
_COLUMNS = [*IDENTITY, "status", "val_loss", "error", "finished_at"]


@dataclass(frozen=True, eq=False)
class SweepStatus:
    """Where a sweep stands."""

    sweep: str
    trials: pd.DataFrame
    """Every trial that the sweep wants, in its author's order: IDENTITY, status (of STATUSES), val_loss, error, finished_at."""
    n_left_out: int
    """Rows that the manifest no longer names."""
    running: Running | None
    """What the process that runs the sweep is training; None when none runs it."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by status."""
        return {name: int((self.trials["status"] == name).sum()) for name in STATUSES}


def read_status(store: Store) -> SweepStatus:
    """The status of a sweep; UserError when a file of it can't be read."""
    running = read_running(store)
    opened = SweepResults.of_store(store, _COLUMNS)
    missing = opened.missing.astype(object).assign(status=MISSING)
    trials = pd.concat([opened.trials.astype(object), missing], ignore_index=True)[_COLUMNS]
    if running:
        trials.loc[trials["trial_id"].isin(running.trials) & trials["status"].isin([FAILED, MISSING]), "status"] = RUNNING
    if opened.manifest.trials is None:
        trials = trials.sort_values(["budget_flops", "size", "variant", "rho", "seed"], ignore_index=True)
    else:
        positions = opened.manifest.positions()
        trials = trials.sort_values("trial_id", key=lambda ids: ids.map(positions), ignore_index=True)
    return SweepStatus(store.sweep, trials, len(opened.left_out), running)


def with_progress(store: Store, trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with the columns `step` and `steps`, None for trials that are done or have no checkpoint."""
    progress = [
        _progress(store.checkpoints / i) if s in (FAILED, RUNNING, MISSING) else None
        for i, s in zip(trials["trial_id"], trials["status"], strict=True)
    ]
    step, steps = ([p and p[k] for p in progress] for k in (0, 1))
    return trials.assign(step=pd.Series(step, dtype=object), steps=pd.Series(steps, dtype=object))


def _progress(folder: Path) -> tuple[int, int] | None:
    """The step of a trial's newest checkpoint and the steps of the whole training; None without a checkpoint."""
    found = []
    for path in folder.glob("*/state.json"):
        try:
            state = read_json(path)
            found.append((int(state["step"]), int(state["steps"])))
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            # This checkpoint is being replaced right now; the next call will see it.
            continue
    return max(found, default=None)
