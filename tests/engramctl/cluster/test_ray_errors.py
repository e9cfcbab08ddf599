from types import SimpleNamespace

import pytest
from ray import exceptions
from ray.air.execution._internal.actor_manager import RayActorManager

from engramctl.cluster.ray_errors import as_a_trials, let_trials_fail, reason

OUT_OF_MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: ::1) was 5.87GB / 23.54GB
OOM kill reason: Memory usage 6282878976B exceeded threshold of 6268462592B (24.8% of 25276059648B limit)
Considered workers: [
Selected to kill: (Actor(e779): job ID=01000000, task name=A.__init__, pid=887, actual memory used=4.75GB, worker ID=109f)
]
888     0.77    ray::t
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io"""
CRASHED = """The actor died unexpectedly before finishing this task.
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Some common causes include: (1) the process was
killed by the OOM killer due to high memory usage, (2) ray stop --force was called"""
KILLED = "killed for memory at 5.1 GB; use --workers 1 or a smaller batch"
ENDED = "its process was killed or crashed; if memory ran out (`dmesg` says so), use --workers 1 or a smaller batch"


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (exceptions.OutOfMemoryError(OUT_OF_MEMORY), KILLED),
        (as_a_trials(exceptions.OutOfMemoryError(OUT_OF_MEMORY)), KILLED),
        (exceptions.OutOfMemoryError("the node is running low on memory"), "killed for memory; use --workers 1 or a smaller batch"),
        (exceptions.WorkerCrashedError(), ENDED),
        (exceptions.RayActorError(error_msg=CRASHED), ENDED),
        (exceptions.NodeDiedError("a node of the cluster died"), "a node of the cluster died"),
        (RuntimeError("Traceback\n  ...\nValueError: no"), "ValueError: no"),
        (None, "unknown"),
    ],
)
def test_reasons_are_one_line(problem, said):
    assert reason(problem) == said


@pytest.mark.parametrize(
    "problem",
    [
        exceptions.OutOfMemoryError(OUT_OF_MEMORY),
        exceptions.WorkerCrashedError(),
        exceptions.NodeDiedError("gone"),
        exceptions.OutOfDiskError("full"),
        exceptions.RayActorError(error_msg=CRASHED),
    ],
)
@pytest.mark.parametrize("method", ["_actor_start_failed", "_actor_task_failed"])
def test_tune_takes_any_error_of_ray_for_a_trials(problem, method):
    let_trials_fail()
    let_trials_fail()  # once is enough
    told = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda _, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    getattr(RayActorManager, method)(manager, actor if method == "_actor_start_failed" else task, problem)
    (error,) = told
    assert isinstance(error, exceptions.RayActorError)
    assert str(problem) in str(error)
