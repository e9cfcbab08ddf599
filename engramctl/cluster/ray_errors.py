"""Errors of Ray itself, in words that say what to do."""

import pickle
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from engramctl.present.format import last_line

_FOR_MEMORY = ("running low on memory", "OutOfMemoryError", "OOM kill reason")
_USED = re.compile(r"Selected to kill: .*actual memory used=([\d.]+)([KMGT])B")
"""Ray's memory monitor may kill several at once and doesn't say which of them the message is about."""
_SCALE = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def reason(problem: BaseException | None) -> str:
    """Why a worker is gone, in one line."""
    from ray.exceptions import RayError

    text = str(problem or "").strip()
    if any(word in text for word in _FOR_MEMORY):
        return _killed_for_memory(text)
    if isinstance(problem, RayError) and "died unexpectedly" in text:
        return "its process was killed or crashed; if memory ran out (`dmesg` says so), use --workers 1 or a smaller batch"
    return last_line(text) or (type(problem).__name__ if problem else "unknown")


def _killed_for_memory(text: str) -> str:
    """`killed for memory at 5.1 GB; use --workers 1 or a smaller batch`, from Ray's page about it."""
    used = [float(number) * _SCALE[unit] for number, unit in _USED.findall(text)]
    at = f" at {'up to ' if len(used) > 1 else ''}{max(used) / 1e9:.2g} GB" if used else ""
    return f"killed for memory{at}; use --workers 1 or a smaller batch"


def last_error(trial: Any) -> BaseException | None:
    """What ended a trial of Tune last, as the process that runs Tune keeps it."""
    with suppress(OSError, TypeError, pickle.PickleError):
        error: BaseException = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        return error
    return None


def let_trials_fail() -> None:
    """Have Tune, in this process, take every error of Ray for that of a trial.

    It knows two kinds and ends the whole sweep over any other, such as a worker that was killed for memory.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager

    manager: Any = RayActorManager
    if hasattr(manager, "of_trials"):
        return
    started, worked = manager._actor_start_failed, manager._actor_task_failed
    manager._actor_start_failed = lambda self, tracked_actor, exception: started(self, tracked_actor, as_a_trials(exception))
    manager._actor_task_failed = lambda self, tracked_actor_task, exception: worked(self, tracked_actor_task, as_a_trials(exception))
    manager.of_trials = True


def save_state_once() -> None:
    """Have Tune, in this process, save the state of its experiment at the start alone.

    Tune wants to find it at the end, but nothing is restored from it, and a disk that is full later on would end the sweep.
    """
    from ray.tune.execution.experiment_state import _ExperimentCheckpointManager

    manager: Any = _ExperimentCheckpointManager
    if hasattr(manager, "saved"):
        return
    manager.saved, save = False, manager.sync_up_experiment_state

    def once(self: Any, save_fn: Any, force: bool = False, wait: bool = False) -> None:
        if not self.saved:
            save(self, save_fn, force=True, wait=True)
            self.saved = True

    manager.sync_up_experiment_state = once


def as_a_trials(problem: Exception) -> Exception:
    """The error as one of those that Tune knows."""
    from ray.exceptions import RayActorError, RayError, RayTaskError

    if isinstance(problem, RayError) and not isinstance(problem, RayActorError | RayTaskError):
        return RayActorError(error_msg=f"{type(problem).__name__}: {problem}")
    return problem
