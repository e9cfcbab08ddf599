"""Whether the trials of a sweep can be trained by several devices each."""

from collections.abc import Sequence

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engramctl.cluster.session import Resources
from engramctl.results.store import Store


def check_devices(resources: Resources, store: Store, trials: Sequence[TrialConfig]) -> None:
    """UserError when a trial can't be trained by `resources.devices` processes, or was begun by a different number of them.

    `trials` is empty while the budget is a wall time that has not been turned into FLOPs.
    """
    from engram.training.checkpoints.shards import check_begun
    from engram.training.replicas import check_processes

    devices = resources.devices
    kind, numbered, _ = resources.device.partition(":")
    if devices > 1 and numbered:
        raise UserError(f"--device {resources.device} is a single one: with --devices-per-trial {devices} use {kind}")
    if devices > 1 and not trials:
        raise UserError("a wall time is turned into FLOPs on one device: with --devices-per-trial give --budget in FLOPs")
    finished = store.finished_ids()
    for trial in trials:
        if trial.id not in finished:
            check_processes(trial.model, trial.train, devices)
            check_begun(store.checkpoints / trial.id, devices)
