"""Ray Tune: trials in, finished rows in the store; resources, retries, live progress."""

import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from engram.config import TrialConfig
from engram.errors import UserError

if TYPE_CHECKING:
    from engram.training.speed import Speed
    from engramctl.worker import WorkerSettings

Event = dict[str, Any]
"""`trial_id`, `kind` (started, progress, ended, retry, error) and what the worker reported."""

_RETRIES = 2
"""Times a trial is started again when its process dies; it continues from its checkpoint."""

_CONNECT_S = 5.0

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True)
class Resources:
    """What the trials of a sweep may use."""

    device: str
    workers: int | None
    """Trials at one time; None: as many as the cluster has room for."""
    address: str | None
    """A Ray cluster; None: this machine."""
    devices: int = 1
    """Processes that train one trial together, a core or a GPU each."""


def local_workers(device: str, devices: int = 1) -> int:
    """Trials that this machine has room for, with so many devices each; UserError when it has not enough for one on several."""
    there = _local_devices(device)
    if devices > max(1, there):
        kind = "cores" if device == "cpu" else "GPUs"
        raise UserError(f"--devices-per-trial {devices}: this machine has {there} {kind} for trials")
    return max(1, there // devices)


def _local_devices(device: str) -> int:
    """GPUs of this machine if the trials run there, else cores that this process may use."""
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
    physical = psutil.cpu_count(logical=False) or 1
    return max(1, min(physical, len(os.sched_getaffinity(0))))


@contextmanager
def ray_session(resources: Resources) -> Iterator[None]:
    """Ray for the length of a block: a private one on this machine, or the cluster at `resources.address`."""
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    import ray

    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if resources.address:
        _require_cluster(resources.address)
    try:
        if resources.address:
            ray.init(address=resources.address, **common)
        else:
            cpus = None if resources.workers is None else resources.workers * resources.devices
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **common)
    except (ConnectionError, ValueError, RuntimeError, OSError) as problem:
        where = resources.address or "this machine"
        raise UserError(f"Ray at {where} can't be reached: {str(problem).splitlines()[0]}") from None
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _require_cluster(address: str) -> None:
    """UserError unless something listens at the address: Ray itself would go on trying for minutes."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise UserError(f"--address {address} is not of the form ray://HOST:PORT, HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as problem:
        raise UserError(f"--address {address}: nothing answers there ({problem})") from None


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def trial_resources(resources: Resources) -> dict[str, float]:
    """CPUs and GPUs of a process that trains: one core, or one core and an equal share of the GPUs (a whole one of several)."""
    import ray

    if resources.device == "cpu" or (resources.device == "auto" and not ray.cluster_resources().get("GPU")):
        return {"cpu": 1.0}
    gpus = ray.cluster_resources().get("GPU", 0.0)
    if not gpus:
        raise UserError(f"device '{resources.device}': the Ray cluster has no GPU; use --device cpu or auto")
    share = min(1.0, gpus / resources.workers) if resources.workers and resources.devices == 1 else 1.0
    return {"cpu": 1.0, "gpu": share}


def measure_speeds(trials: Sequence[TrialConfig], corpus_folder: Path, resources: Resources, seconds: float) -> list["Speed"]:
    """Time a few steps of each trial on the sweep's own workers, with all of them busy as they will be later."""
    import ray

    from engramctl.running import Process

    wanted = trial_resources(resources)

    @ray.remote(num_cpus=wanted["cpu"], num_gpus=wanted.get("gpu", 0), max_calls=1)
    def measure(trial_json: str, driver: Process) -> "Speed":
        from engram.corpus.dataset import Corpus
        from engram.training.machine import resolve_device, settle_process
        from engram.training.speed import measure_speed
        from engramctl.worker import exit_with

        exit_with(driver)
        settle_process(threads=int(wanted["cpu"]))
        trial = TrialConfig.model_validate_json(trial_json)
        return measure_speed(trial, Corpus.open(corpus_folder), resolve_device(resources.device), seconds)

    # Every measurement has company: one trial alone on a machine runs faster than two side by side.
    copies = 1 if resources.workers is None else -(-resources.workers // len(trials))
    jobs = [measure.remote(trial.model_dump_json(), Process.this()) for trial in trials for _ in range(copies)]
    measured: list[Speed] = ray.get(jobs)
    return [max(measured[i * copies : (i + 1) * copies], key=lambda speed: speed.step_s) for i in range(len(trials))]


def run_trials(trials: Sequence[TrialConfig], settings: "WorkerSettings", resources: Resources, on_event: Callable[[Event], None]) -> None:
    """Train the trials, in their order as workers come free; returns when all have a row or can't get one.

    `on_event` is called for each change of a trial. Rows are written by the workers; the driver only writes the
    `failed` row of a trial whose process died again and again.
    """
    from ray import tune

    from engramctl.group import NOTHING, TrialGroup
    from engramctl.worker import TrialWorker

    worker: type[tune.Trainable] = TrialWorker
    wanted, at_once = trial_resources(resources), resources.workers
    if resources.devices > 1:  # Tune does not see what their processes take: it must not start more than have room
        worker, wanted, at_once = TrialGroup, NOTHING, min(cluster_workers(resources), resources.workers or len(trials))
    tune_folder = settings.ray_folder
    with _event_channel(resources, on_event) as emit:
        trainable = tune.with_resources(tune.with_parameters(worker, settings=settings), wanted)
        tuner = tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search([trial.model_dump_json() for trial in trials])},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=at_once,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(tune_folder.resolve()),
                verbose=0,
                # Workers keep their own checkpoints, beside the results.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
                callbacks=[_callback(emit, settings)],
            ),
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(tune_folder, ignore_errors=True)


def _trial_id(trial: Any) -> str:
    return TrialConfig.model_validate_json(trial.config["trial"]).id


class _Here:
    """Calls a function of this process. Tune pickles its callbacks for a restore, which we never ask for: the copy does nothing."""

    def __init__(self, function: Callable[[Event], None] | None) -> None:
        self.function = function

    def __call__(self, event: Event) -> None:
        if self.function:
            self.function(event)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Here, (None,)


@contextmanager
def _event_channel(resources: Resources, on_event: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
    """A function for Tune's callback to call. Behind a ray:// address Tune runs on the cluster and events come back by queue."""
    if not (resources.address or "").startswith("ray://"):
        yield _Here(on_event)
        return
    from ray.util.queue import Queue

    queue = Queue()

    def drain() -> None:
        while (event := queue.get()) is not None:
            on_event(event)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        yield queue.put
    finally:
        queue.put(None)
        reader.join(timeout=10)


def _callback(emit: Callable[[Event], None], settings: "WorkerSettings") -> Any:
    from ray.tune import Callback

    from engramctl.rows import trial_row
    from engramctl.store import Store

    class Events(Callback):
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            emit({"trial_id": _trial_id(trial), "kind": "started"})

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
            kept = ("step", "steps", "train_loss", "tokens_per_s", "status", "error", "val_loss")
            kind = "ended" if result.get("status") else "progress"
            emit({"trial_id": _trial_id(trial), "kind": kind, **{name: result.get(name) for name in kept}})

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            emit({"trial_id": _trial_id(trial), "kind": "retry"})

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            config = TrialConfig.model_validate_json(trial.config["trial"])
            error = f"the training process died {_RETRIES + 1} times; the last error: {_last_error(trial)}"
            store = Store(settings.results, settings.context.sweep)
            if store.status(config.id) is None:
                store.write_trial(trial_row(config, settings.context, "failed", error, {}), None, None)
            emit({"trial_id": config.id, "kind": "error", "status": "failed", "error": error})

    return Events()


def _last_error(trial: Any) -> str:
    lines = str(trial.get_error() or "unknown").strip().splitlines()
    return lines[-1] if lines else "unknown"


def cluster_workers(resources: Resources) -> int:
    """Trials that the cluster has room for at one time; UserError when it has not enough devices for one on several."""
    import ray

    there, each = ray.cluster_resources(), trial_resources(resources)
    wanted = {"CPU": each["cpu"] * resources.devices, "GPU": each.get("gpu", 0.0) * resources.devices}
    room = min(int(there.get(name, 0.0) / amount) for name, amount in wanted.items() if amount)
    if not room and resources.devices > 1:
        has = f"{there.get('CPU', 0.0):.0f} CPUs" + (f" and {there.get('GPU', 0.0):.0f} GPUs" if "gpu" in each else "")
        raise UserError(f"--devices-per-trial {resources.devices}: the Ray cluster has {has}")
    return max(1, room)
