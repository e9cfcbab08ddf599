"""Training speeds, measured on the workers of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engramctl.cluster.ray_errors import reason
from engramctl.cluster.session import Resources, trial_resources

if TYPE_CHECKING:
    from engram.training.speed import Speed


def measure_speeds(trials: Sequence[TrialConfig], corpus_folder: Path, resources: Resources, seconds: float) -> list["Speed"]:
    """Time a few steps of each trial on the sweep's own workers, all of them as busy as they will be later."""
    import ray

    from engramctl.results.liveness import Process

    wanted = trial_resources(resources)

    @ray.remote(num_cpus=wanted["cpu"], num_gpus=wanted.get("gpu", 0), max_calls=1)
    def measure(trial_json: str, driver: Process) -> "Speed":
        from engram.corpus.dataset import Corpus
        from engram.training.machine import resolve_device, settle_process
        from engram.training.speed import measure_speed
        from engramctl.cluster.worker import exit_with

        exit_with(driver)
        device = resolve_device(resources.device)
        settle_process(int(wanted["cpu"]), device)
        return measure_speed(TrialConfig.model_validate_json(trial_json), Corpus.open(corpus_folder), device, seconds)

    # Keep every worker busy while measuring: a trial alone on a machine runs faster than two side by side.
    copies = 1 if resources.workers is None else -(-resources.workers // len(trials))
    jobs = [measure.remote(trial.model_dump_json(), Process.this()) for trial in trials for _ in range(copies)]
    try:
        measured: list[Speed] = ray.get(jobs)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as problem:
        raise UserError(f"the trials can't be timed: {reason(problem)}") from None
    return [max(measured[i * copies : (i + 1) * copies], key=lambda speed: speed.step_s) for i in range(len(trials))]
