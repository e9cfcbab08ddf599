"""What runs in a Ray worker: a process that trains one trial after another.

The worker writes a finished trial itself, atomically, before it reports it, so a crash of the driver loses nothing.
"""

import os
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray import tune

from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.corpus.prepare import open_again
from engram.corpus.sources import CorpusSpec
from engram.errors import UserError
from engram.files import REFUSALS, is_full, refusal
from engram.memory.placement.settings import TablePlacement
from engram.training.checkpoints.room import require_room
from engram.training.machine import give_back, peak_rss_bytes, reset_peak_rss, resolve_device, settle_process
from engram.training.trainer import Trainer
from engramctl.present.format import last_line
from engramctl.results.liveness import Process
from engramctl.results.rows.trials import SweepContext, trial_row
from engramctl.results.store import Store
from engramctl.results.trial_table import DIVERGED, FAILED, FINISHED

_ORPHAN_CHECK_S = 2.0


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of a sweep needs to know; paths are absolute and visible from every machine in the cluster."""

    results: Path
    corpus_folder: Path
    corpus: CorpusSpec
    """What is in the folder, should it have to be made again."""
    context: SweepContext
    device: str
    threads: int
    report_s: float
    checkpoint_s: float
    driver: Process
    devices: int = 1
    """Processes that train one trial together."""
    resources: dict[str, float] = field(default_factory=lambda: {"cpu": 1.0})
    """What Ray reserves for each of them."""
    tables: TablePlacement = field(default_factory=TablePlacement)
    """Where the memory tables of each trial lie."""
    private_folder: Path | None = None
    """Of a private Ray; None on a cluster, whose machines have no other folder in common than the results."""

    @property
    def ray_folder(self) -> Path:
        """Where Ray keeps its files while the sweep runs."""
        return (self.private_folder or self.results / self.context.sweep) / ".ray"


def exit_with(driver: Process) -> None:
    """End this process soon after the driver ends, for whatever reason: a killed sweep must not keep burning cores."""

    def watch() -> None:
        while not driver.gone():
            time.sleep(_ORPHAN_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, name="driver-watch", daemon=True).start()


class TrialWorker(tune.Trainable):
    """Ray Tune's view of a trial: `step` trains for `report_s` seconds; actors are reused from trial to trial."""

    def setup(self, config: dict[str, Any], settings: WorkerSettings) -> None:  # type: ignore[override]  # tune.with_parameters
        self.settings = settings
        exit_with(settings.driver)
        self.device = resolve_device(settings.device)
        # Rows that lie outside the model are summed and trained by the CPU, whatever trains the rest.
        settle_process(settings.threads, self.device if settings.tables.kind == "process" else torch.device("cpu"))
        self.corpus: Corpus | None = None  # opened in `step`, where a failure becomes a row
        self.store = Store(settings.results, settings.context.sweep)
        self._set_trial(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._set_trial(new_config)
        return True

    def _set_trial(self, config: dict[str, Any]) -> None:
        self.trial = TrialConfig.model_validate_json(config["trial"])
        self.trainer: Trainer | None = None  # built in `step`, where a failure becomes a row

    def step(self) -> dict[str, Any]:
        try:
            return self._step()
        except Exception as problem:
            # A bug, or a trial that doesn't fit the machine: recorded as failed while the other trials go on.
            report = user_message(problem) or traceback.format_exc()
        # Only now, with the exception gone: the frames of its traceback hold the tensors of the step that failed.
        self._close_trainer()
        return keep_failure(self.store, self.trial, self.settings.context, report)

    def _step(self) -> dict[str, Any]:
        if self.trainer is None:
            status = self.store.status(self.trial.id)
            if status in (FINISHED, DIVERGED):  # written by a process that died before it could report it
                return {"done": True, "status": status}
            reset_peak_rss()
            folder = self.store.checkpoints / self.trial.id
            where = self.settings.tables
            require_room(folder, self.trial)
            if self.corpus is None:
                self.corpus = open_again(self.settings.corpus_folder, self.settings.corpus)
            self.trainer = Trainer(self.trial, self.corpus, folder, self.device, self.settings.checkpoint_s, tables=where)
        progress = self.trainer.advance(self.settings.report_s)
        result: dict[str, Any] = {"done": self.trainer.done, **vars(progress)}
        if self.trainer.done:
            result |= keep_trial(self.trainer, self.store, self.settings.context)
            self._close_trainer()
        return result

    def _close_trainer(self) -> None:
        """Let go of the trainer with all of its memory, which the next trial may need, or another worker on the same GPU."""
        trainer, self.trainer = self.trainer, None
        if trainer is not None:
            trainer.close()
            del trainer
        give_back(self.device)


def user_message(problem: Exception) -> str | None:
    """What ended a trial, in one line, where no bug is to blame but the user's request or a disk; None otherwise."""
    kept = "what was trained up to the last checkpoint is kept"
    if is_full(problem) and isinstance(problem, OSError):
        return f"the disk is full ({problem.filename or 'the checkpoints'}); {kept}"
    if isinstance(problem, OSError) and problem.errno in REFUSALS:
        return f"{refusal(problem)}; {kept}"
    return str(problem) if isinstance(problem, UserError) else None


def keep_failure(store: Store, trial: TrialConfig, context: SweepContext, report: str) -> dict[str, Any]:
    """Write the row of a trial that failed; returns the outcome, for Tune.

    A disk may have no room even for that: then the trial stays one without a row, and the driver says why.
    """
    with suppress(OSError):
        store.write_trial(trial_row(trial, context, FAILED, report, {}), None, None)
    return {"done": True, "status": FAILED, "error": last_line(report)}


def keep_trial(trainer: Trainer, store: Store, context: SweepContext) -> dict[str, Any]:
    """Write the row of a trial that is done; every process that trains it must call this. Returns the outcome, for Tune."""
    outcome = trainer.outcome()
    rss = int(trainer.processes.gather_everywhere(torch.tensor([peak_rss_bytes()])).max())
    values = {**outcome.values, "peak_rss_bytes": rss, "device": str(trainer.device), **table_columns(trainer)}
    row = trial_row(trainer.trial, context, outcome.status, outcome.error, values)
    if trainer.processes.first:
        store.write_trial(row, outcome.curve, outcome.documents)
    trainer.discard_checkpoints()
    return {"status": outcome.status, "error": outcome.error, "val_loss": row["val_loss"]}


def table_columns(trainer: Trainer) -> dict[str, Any]:
    """Where a trial's tables lay and what that cost, as columns."""
    has_memory, count = trainer.trial.model.memory is not None, trainer.processes.count
    cost = trainer.table_cost
    return {
        "devices": count,
        "tables": None if not has_memory else "sharded" if count > 1 else trainer.placement.kind,
        "tables_wait_s": None if trainer.tables is None else cost.wait_s,
        "tables_hit_rate": None if cost.traffic is None else cost.traffic.hit_rate,
    }
