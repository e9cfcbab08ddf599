"""Where the time of a sweep went, as `engramctl bench sweep` measures it."""

from dataclasses import dataclass

from engram.benchmarks.results import Machine


@dataclass(frozen=True)
class SweepSpeed:
    """Where the workers' time of a sweep went; all but `wall_s` and `startup_s` are seconds of workers, summed."""

    machine: Machine
    workers: int
    trials: int
    steps: int
    """Of each trial"""
    tokens_per_s: float
    """Of all workers together, over the whole wall time"""
    wall_s: float
    """From before Ray starts to after the last row"""
    startup_s: float | None
    """Until the first training step of the first trial"""
    train_s: float
    """In optimiser steps (column `train_s`)"""
    validation_s: float
    """In validations: the rest of column `wall_s`"""
    waiting_s: float
    """Until each worker's first training step"""
    idle_end_s: float
    """After each worker's last trial, until the last row"""
    shutdown_s: float
    """From the last row until Ray has stopped; not in the wall time"""
    problems: list[str]
    """Trials that did not finish"""

    @property
    def efficiency(self) -> float:
        """Share of the workers' time that is optimiser steps."""
        return self.train_s / (self.workers * self.wall_s)

    @property
    def rest_s(self) -> float:
        """Checkpoints, rows, building models, waiting for the driver."""
        return self.workers * self.wall_s - self.train_s - self.validation_s - self.waiting_s - self.idle_end_s
