"""How many trials fit into this machine's memory side by side."""

from collections.abc import Sequence

from engram.config.trial import TrialConfig
from engram.memory.placement.settings import TablePlacement
from engram.scaling.accounting import count_parameters, training_memory_bytes
from engram.training.validation import sequences_at_once

_TABLE_BYTES = 12
"""A table's weight, gradient and moment for each parameter, as in `training_memory_bytes`."""


def trial_memory(trial: TrialConfig, tables: TablePlacement, devices: int = 1) -> int:
    """Rough bytes that a trial takes in memory; each process has all but the tables, which they share."""
    in_tables = _TABLE_BYTES * count_parameters(trial.model).memory_tables
    rest = training_memory_bytes(trial.model, sequences_at_once(trial.train) * trial.train.seq_len) - in_tables
    return devices * rest + (tables.cache_bytes if tables.kind == "disk" and in_tables else in_tables)


def workers_that_fit(sizes: Sequence[int], workers: int, free: int) -> int:
    """How many trials may run side by side, up to `workers`: even the largest of them together fit; at least one.

    Args:
        sizes: bytes that each trial takes.
        workers: how many there are cores or GPUs for.
        free: bytes that are free.
    """
    largest = sorted(sizes, reverse=True)
    return max([n for n in range(1, workers + 1) if sum(largest[:n]) <= free], default=1)


def memory_note(sizes: Sequence[int], workers: int, free: int, given: bool) -> str | None:
    """What there is to say about memory before trials start; None if they fit.

    What trials take is an estimate. So it bounds only a number of workers that we have chosen ourselves, and refuses nothing: a trial
    that is killed for memory gets a row that says so, and the others go on.
    """
    fit, largest = workers_that_fit(sizes, workers, free), max(sizes, default=0)
    has = f"{free / 1e9:.2g} GB that are free"
    if largest > free:
        alone = "" if given or workers == 1 else "1 at a time: "
        return f"{alone}a trial takes about {largest / 1e9:.2g} GB, more than the {has}; it may be killed for memory"
    if fit == min(workers, len(sizes)) or fit == workers:
        return None
    if given:
        return f"{workers} at a time may be too many: each takes up to {largest / 1e9:.2g} GB of the {has}; --workers {fit} is safe"
    return f"{fit} at a time, not {workers}: each takes about {largest / 1e9:.2g} GB of the {has}"
