"""State, progress and outcome of a trial."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from engram.training.curve import Curve, empty_curve


@dataclass(frozen=True)
class Progress:
    """How far a trial has got."""

    step: int
    steps: int
    train_loss: float | None
    """In nats, of the last curve point."""
    tokens_per_s: float | None
    note: str = ""
    """What should be known about how the trial was continued, in one line: a damaged checkpoint was passed over."""


@dataclass(frozen=True)
class Outcome:
    """The result of a trial."""

    status: str
    """finished or diverged."""
    error: str | None
    values: dict[str, Any]
    """Columns of its row."""
    curve: Curve
    documents: dict[str, np.ndarray] | None
    """Validation losses by document (`Validation.documents`); None for a trial that diverged."""


@dataclass
class TrainState:
    """What a checkpoint keeps besides tensors. Field names are keys of its JSON file."""

    step: int = 0
    wall_s: float = 0.0
    train_s: float = 0.0
    n_restarts: int = 0
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    smoothed_loss: float | None = None
    curve: Curve = field(default_factory=empty_curve)
    expert_loads: list[list[int]] = field(default_factory=list)
    """Tokens by layer and expert since the last validation."""
