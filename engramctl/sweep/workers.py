"""How many trials of a sweep this machine trains at a time."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from engram.cache import default_cache
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engramctl.cluster.limits import free_memory
from engramctl.cluster.session import Resources, local_workers
from engramctl.sweep.memory import memory_note, trial_memory, workers_that_fit

if TYPE_CHECKING:
    from engramctl.sweep.run import SweepRun


def local_resources(run: "SweepRun") -> Resources:
    """The resources with the number of workers filled in from what this machine has room for."""
    from engram.training.machine import resolve_device

    device_type = resolve_device(run.resources.device).type
    room = local_workers(device_type, run.resources.devices)
    workers = run.resources.workers or room
    run.tables.check_memory(workers)
    return replace(run.resources, workers=workers)


def within_memory(run: "SweepRun", trials: Iterable[TrialConfig]) -> "SweepRun":
    """The sweep with no more workers than this machine's memory has room for, unless they were asked for; says so."""
    from engram.training.machine import resolve_device

    resources = run.resources
    if resources.address or resources.workers is None or resolve_device(resources.device).type != "cpu":
        return run
    finished, free = run.store.finished_ids(), free_memory()
    sizes = [trial_memory(trial, run.tables, resources.devices) for trial in trials if trial.id not in finished]
    if note := memory_note(sizes, resources.workers, free, run.workers_given):
        run.watcher.note(note)
    workers = resources.workers if run.workers_given else workers_that_fit(sizes, resources.workers, free)
    return replace(run, resources=replace(resources, workers=workers))


def side_by_side(run: "SweepRun", trials: Iterable[TrialConfig], corpus: Corpus) -> "SweepRun":
    """The sweep with as many trials at a time as pay on this machine's GPUs, unless a number was asked for; says so."""
    from engram.training.machine import resolve_device

    resources, device = run.resources, resolve_device(run.resources.device) if run.resources.address is None else None
    if run.workers_given or device is None or device.type == "cpu" or resources.devices > 1 or run.tables.kind != "process":
        return run
    from engramctl.sweep.side_by_side import Gpus, choose

    finished = run.store.finished_ids()
    left = [trial for trial in trials if trial.id not in finished]
    with run.watcher.stages() as progress:
        choice = choose(left, run.tables, Gpus.here(device), corpus.folder, default_cache(), progress)
    run.watcher.note(choice.note)
    return replace(run, resources=replace(resources, workers=choice.workers))
