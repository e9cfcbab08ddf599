"""What it costs to keep tables outside the process: the findings of `benchmarks.offload_serving` and `benchmarks.offload_training`."""

from dataclasses import dataclass

from engram.benchmarks.results.machine import Machine
from engram.benchmarks.results.measured import Measured

NO_TABLE = "no table"
"""The inference case that the others are compared with."""
PROCESS = "process"
"""The training case that the others are compared with."""


@dataclass(frozen=True)
class ServingCase:
    """A place for the tables and the throughput with it."""

    name: str
    tokens_per_s: Measured
    """Over the rounds."""
    ratio: Measured | None
    """Throughput over that of the same model without a table: median over the passes and its 95 % interval; None for that model."""
    total_ratio: float | None
    """The same from the time of all passes together."""
    wait_share: float
    """Share of the time that the model waited for rows."""
    cpu_share: float
    """Processor time of the tables' thread as a share of that of all cores."""
    hit_rate: float | None
    """Of the cache, repeated rows of a pass counted once."""
    reads_per_token: float | None
    """Rows read from disk."""
    rows: int | None
    """Of its tables; None where it has none."""


@dataclass(frozen=True)
class ServingSpeed:
    """What `measure_serving` found."""

    machine: Machine
    p_active: int
    rows: int
    row_format: str
    table_bytes: int
    """Rows as they are stored, without what the file adds."""
    file_bytes: int
    sequences: int
    tokens: int
    rounds: int
    cases: list[ServingCase]
    left_out: dict[str, str]
    """Cases that were not run, and why."""


@dataclass(frozen=True)
class TrainingCase:
    """A place for the tables and the time of a step with it."""

    name: str
    rows: int
    step_s: Measured
    ratio: Measured | None
    """Step time over that with the tables in the process: median over the rounds and its 95 % interval; None for that case."""
    total_ratio: float | None
    """The same from the time of all rounds together."""
    wait_share: float
    """Share of the time that steps waited for rows."""
    hit_rate: float | None
    rows_read_per_step: float | None
    rows_written_per_step: float | None
    peak_rss_bytes: int


@dataclass(frozen=True)
class TrainingSpeed:
    """What `measure_placed_training` found."""

    machine: Machine
    p_active: int
    table_bytes: int
    """With the optimiser state."""
    cache_bytes: int
    optimizer: str
    table_optimizer: str
    tokens_per_step: int
    rounds: int
    warm_up_steps: int
    """Steps that every case took before measuring, at least: until the caches were full."""
    cases: list[TrainingCase]
    left_out: dict[str, str]
    """Cases that were not run, and why."""
