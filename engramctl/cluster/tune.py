"""Training trials with Ray Tune: trials go in, finished rows land in the store, events report progress and retries."""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.files import REFUSALS, naming, refusal
from engramctl.cluster.events import ENDED, PROGRESS, RETRY, STARTED, Event
from engramctl.cluster.ray_errors import last_error, let_trials_fail, reason, save_state_once
from engramctl.cluster.session import LASTING, Resources, cluster_workers, trial_resources
from engramctl.results.trial_table import FAILED

if TYPE_CHECKING:
    from engramctl.cluster.worker import WorkerSettings

_RETRIES = 2
"""How often a trial is restarted, from its checkpoint, when its process dies."""


def run_trials(trials: Sequence[TrialConfig], settings: "WorkerSettings", resources: Resources, on_event: Callable[[Event], None]) -> None:
    """Train the trials, in order, as workers become free; returns when each has a row or can't get one.

    `on_event` is called whenever a trial's state changes. The workers write the rows; the driver only writes the `failed` row of a
    trial whose process kept dying.

    Raises UserError when Ray's own folder can't be written.
    """
    from ray import tune

    from engramctl.cluster.multi_device import TUNE_RESOURCES, TrialGroup
    from engramctl.cluster.worker import TrialWorker

    worker: type[tune.Trainable] = TrialWorker
    wanted, at_once = trial_resources(resources), resources.workers
    if resources.devices > 1:  # Tune can't see what the trials' processes take, so it must be told how many trials fit
        worker, wanted, at_once = TrialGroup, TUNE_RESOURCES, min(cluster_workers(resources), resources.workers or len(trials))
    tune_folder = settings.ray_folder
    with _ray_may_write(tune_folder), _event_channel(resources, on_event) as emit:
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
                # Workers write their own checkpoints, next to the results.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
                callbacks=[_callback(emit, settings)],
            ),
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(tune_folder, ignore_errors=True)


@contextmanager
def _ray_may_write(folder: Path) -> Iterator[None]:
    """UserError in one line when Ray can't write its own files."""
    try:
        with naming(folder):
            yield
    except OSError as problem:
        if problem.errno not in REFUSALS:
            raise
        raise UserError(f"Ray can't write its files: {refusal(problem)}") from None


def _trial_id(trial: Any) -> str:
    return TrialConfig.model_validate_json(trial.config["trial"]).id


class _LocalFunction:
    """A function of this process. Tune pickles its callbacks for a restore that we never ask for; the unpickled copy does nothing."""

    def __init__(self, function: Callable[[Event], None] | None) -> None:
        self.function = function

    def __call__(self, event: Event) -> None:
        if self.function:
            self.function(event)

    def __reduce__(self) -> tuple[Any, ...]:
        return _LocalFunction, (None,)


@contextmanager
def _event_channel(resources: Resources, on_event: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
    """The function that Tune's callback calls. With a ray:// address Tune runs on the cluster and events come back through a queue."""
    if not (resources.address or "").startswith("ray://"):
        yield _LocalFunction(on_event)
        return
    from ray.util.queue import Queue

    queue = Queue(actor_options=LASTING)

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

    from engramctl.results.rows.trials import trial_row
    from engramctl.results.store import Store

    class Events(Callback):
        def setup(self, *_: Any, **info: Any) -> None:  # where Tune runs, which may be on the cluster
            let_trials_fail()
            save_state_once()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            emit(Event(_trial_id(trial), STARTED))

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
            emit(
                Event(
                    _trial_id(trial),
                    ENDED if result.get("status") else PROGRESS,
                    done=result.get("step") or 0,
                    total=result.get("steps") or 0,
                    status=result.get("status") or "",
                    error=result.get("error") or "",
                    note=result.get("note") or "",
                    train_loss=result.get("train_loss"),
                    val_loss=result.get("val_loss"),
                    tokens_per_s=result.get("tokens_per_s"),
                )
            )

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            emit(Event(_trial_id(trial), RETRY))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            config = TrialConfig.model_validate_json(trial.config["trial"])
            error = f"{reason(last_error(trial))} (its process died {_RETRIES + 1} times)"
            store = Store(settings.results, settings.context.sweep)
            if store.status(config.id) is None:
                with suppress(OSError):  # it stays a trial without a row
                    store.write_trial(trial_row(config, settings.context, FAILED, error, {}), None, None)
            emit(Event(config.id, ENDED, status=FAILED, error=error))

    return Events()
