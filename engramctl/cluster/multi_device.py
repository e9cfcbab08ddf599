"""A trial on several devices: one process per device, started by Ray Train inside a single Ray Tune trial.

Tune schedules the trial like any other and restarts it when one of its processes dies. The trial itself reserves only a byte of memory
(Tune insists on something); its processes take a core or a GPU each.
"""

import json
import os
import threading
import traceback
import uuid
from pathlib import Path
from typing import Any

import torch
from ray import tune

from engram.config.trial import TrialConfig
from engram.corpus.prepare import open_again
from engram.files import write_atomically
from engram.processes import Processes, ProcessLostError
from engram.training.checkpoints.room import require_room
from engram.training.machine import reset_peak_rss, settle_process
from engram.training.trainer import Trainer
from engramctl.cluster.worker import WorkerSettings, exit_with, keep_failure, keep_trial, user_message
from engramctl.results.store import Store
from engramctl.results.trial_table import DIVERGED, FINISHED

TUNE_RESOURCES = {"cpu": 0.0, "memory": 1.0}
"""What Tune reserves for the trial itself; Ray Train reserves the rest for the processes it starts."""
_ENVIRONMENT = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}


class TrialDefectError(Exception):
    """A bug, or a trial that doesn't fit the machine; the message is the line that says so, or the traceback of the process that hit it."""


class TrialGroup(tune.Trainable):
    """Ray Tune's view of a trial on several devices: `step` waits `report_s` seconds and reports how far the processes have got."""

    def setup(self, config: dict[str, Any], settings: WorkerSettings) -> None:  # type: ignore[override]  # tune.with_parameters
        self.settings = settings
        exit_with(settings.driver)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.store = Store(settings.results, settings.context.sweep)
        self._set_trial(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._set_trial(new_config)
        return True

    def _set_trial(self, config: dict[str, Any]) -> None:
        self.trial = TrialConfig.model_validate_json(config["trial"])
        self.run: _Run | None = None

    def step(self) -> dict[str, Any]:
        if self.run is None:
            status = self.store.status(self.trial.id)
            if status in (FINISHED, DIVERGED):  # written by processes that died before they could report it
                return {"done": True, "status": status}
            self.run = _Run(self.trial, self.settings)
        self.run.thread.join(self.settings.report_s)
        while self.run.thread.is_alive():
            progress = self.run.progress()
            if progress and not progress["done"]:
                return progress
            self.run.thread.join(self.settings.report_s)  # the processes are starting, or ending
        run, self.run = self.run, None
        last = run.progress()
        if last and last["done"]:  # its row is written, whatever happened afterwards
            return last
        defect = _defect(run.error)
        if defect is None:
            raise run.error or RuntimeError("the processes ended without a result")  # Tune restarts the trial
        return keep_failure(self.store, self.trial, self.settings.context, defect)


def _defect(error: Exception | None) -> str | None:
    """The traceback of the process that failed on its own account; None when a process was lost."""
    failures = getattr(error, "worker_failures", {}).values()
    return next((str(failure) for failure in failures if isinstance(failure, TrialDefectError)), None)


class _Run:
    """One attempt at a trial: Ray Train in a thread of this process."""

    def __init__(self, trial: TrialConfig, settings: WorkerSettings) -> None:
        self.error: Exception | None = None
        name = f"{trial.id}-{uuid.uuid4().hex[:8]}"
        folder = settings.ray_folder / "train"
        folder.mkdir(parents=True, exist_ok=True)
        self._progress = folder / f"{name}.json"
        self.thread = threading.Thread(target=self._fit, args=(trial, settings, name), name="ray-train", daemon=True)
        self.thread.start()

    def progress(self) -> dict[str, Any] | None:
        """The first process's latest report, with the outcome once the trial is done; None before the first report."""
        try:
            read: dict[str, Any] = json.loads(self._progress.read_bytes())
        except FileNotFoundError:
            return None
        return read

    def _fit(self, trial: TrialConfig, settings: WorkerSettings, name: str) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from engramctl.cluster.loopback_group import torch_config

        wanted = {kind.upper(): amount for kind, amount in settings.resources.items()}
        trainer = TorchTrainer(
            train_together,
            train_loop_config={"trial": trial.model_dump_json(), "settings": settings, "progress": self._progress},
            scaling_config=ScalingConfig(num_workers=settings.devices, use_gpu="GPU" in wanted, resources_per_worker=wanted),
            torch_config=torch_config("nccl" if "GPU" in wanted else "gloo"),
            # A lost process ends the attempt; Tune starts the next one and keeps count.
            run_config=RunConfig(name=name, storage_path=str(self._progress.parent), failure_config=FailureConfig(max_failures=0)),
        )
        try:
            trainer.fit()
        except Exception as problem:
            self.error = problem


def train_together(config: dict[str, Any]) -> None:
    """What each of a trial's processes runs, started by Ray Train."""
    settings: WorkerSettings = config["settings"]
    exit_with(settings.driver)
    try:
        _train(TrialConfig.model_validate_json(config["trial"]), settings, config["progress"])
    except ProcessLostError:
        raise
    except Exception as problem:
        raise TrialDefectError(user_message(problem) or traceback.format_exc()) from None


def _train(trial: TrialConfig, settings: WorkerSettings, progress_file: Path) -> None:
    from ray.train.torch import get_device

    device = get_device() if "gpu" in settings.resources else torch.device("cpu")
    settle_process(settings.threads, device)
    processes = Processes.of_default_group(device)
    store = Store(settings.results, settings.context.sweep)
    reset_peak_rss()
    folder = store.checkpoints / trial.id
    require_room(folder, trial)
    corpus = open_again(settings.corpus_folder, settings.corpus)
    trainer = Trainer(trial, corpus, folder, device, settings.checkpoint_s, processes=processes)
    said: dict[str, Any] = {"done": False}
    while not said["done"]:
        progress = trainer.advance(settings.report_s)
        said = {"done": trainer.done, **vars(progress)}
        if trainer.done:
            said |= keep_trial(trainer, store, settings.context)
        if processes.first:
            write_atomically(progress_file, json.dumps(said).encode())
