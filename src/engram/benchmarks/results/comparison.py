"""Our step beside others': the findings of `benchmarks.compare`, `benchmarks.transformers_model` and `benchmarks.dense_table`."""

from dataclasses import dataclass

from engram.benchmarks.results.machine import Machine
from engram.benchmarks.results.measured import Measured


@dataclass(frozen=True)
class Variant:
    """A way that transformers can run the model."""

    experts: str
    dtype: str
    step_s: float | None
    """As probed; None where it does not run."""
    problem: str | None
    compiled: bool = False
    """By `torch.compile`."""

    @property
    def name(self) -> str:
        return f"{self.experts} {self.dtype}{' compiled' if self.compiled else ''}"


@dataclass(frozen=True)
class TableSpeed:
    """Times of the memory's share of a step: hashing, lookup, backward and optimiser."""

    rows: int
    row_dim: int
    table_bytes: int
    """Of the weights."""
    by_row_s: Measured
    dense_s: Measured
    ratio: Measured
    """Dense over by row."""


@dataclass(frozen=True)
class ComparedCase:
    """A model that was trained."""

    name: str
    p_total: int | None
    """None for transformers', whose attention is different."""
    p_active: int | None
    step_s: Measured
    tokens_per_s: Measured


@dataclass(frozen=True)
class Ratio:
    """Tokens per second of one case over those of another, round by round."""

    of: str
    against: str
    tokens_per_s: Measured


@dataclass(frozen=True)
class Comparison:
    """What `measure_comparison` found."""

    machine: Machine
    transformers: str
    """Version."""
    variants: list[Variant]
    """Of transformers' model, as probed."""
    cases: list[ComparedCase]
    ratios: list[Ratio]
    tables: TableSpeed
