"""What a step costs with more memory: the findings of `benchmarks.memory`."""

from dataclasses import dataclass

from engram.benchmarks.results.machine import Machine
from engram.benchmarks.results.measured import Measured


@dataclass(frozen=True)
class MemoryCase:
    """A model and the time of its steps."""

    name: str
    rho: float
    table_factor: int
    rows: int
    """Of all tables."""
    table_bytes: int
    """With the optimiser's moments."""
    p_total: int
    p_active: int
    reads: int
    """Rows read in a step, repeats counted each time."""
    distinct_rows: int
    """Different rows touched in a step."""
    step_s: Measured
    against: str | None
    ratio: Measured | None
    """Step time over that of the case `against`, round by round."""


@dataclass(frozen=True)
class MemorySpeed:
    """What `measure_memory` found."""

    machine: Machine
    tokens_per_step: int
    cases: list[MemoryCase]
    left_out: dict[str, str]
    """Cases that were not run, and why."""
