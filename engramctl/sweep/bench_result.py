"""Where the time of a sweep went, as `engramctl bench sweep` measures it."""

from dataclasses import dataclass

from engram.benchmarks.results import Machine


@dataclass(frozen=True)
class SweepSpeed:
    """Where the workers' time went in a sweep; `train_s` to `idle_end_s` and `rest_s` are summed over workers."""

    machine: Machine
    workers: int
    trials: int
    steps: int
    """Of each trial"""
    tokens_per_s: float
    """All workers together, over the whole wall time"""
    wall_s: float
    """From before Ray starts to after the last row"""
    startup_s: float | None
    """Until the first training step of the first trial"""
    train_s: float
    """Spent in optimiser steps (column `train_s`)"""
    validation_s: float
    """Spent in validations: the rest of column `wall_s`"""
    waiting_s: float
    """Until each worker's first training step"""
    idle_end_s: float
    """After each worker's last trial, until the last row"""
    shutdown_s: float
    """From the last row until Ray has stopped; not in the wall time"""
    problems: list[str]
    """Trials that did not finish, a line each"""

    @property
    def efficiency(self) -> float:
        """Share of the workers' time that goes into optimiser steps."""
        return self.train_s / (self.workers * self.wall_s)

    @property
    def rest_s(self) -> float:
        """Checkpoints, rows, building models, waiting for the driver."""
        return self.workers * self.wall_s - self.train_s - self.validation_s - self.waiting_s - self.idle_end_s
