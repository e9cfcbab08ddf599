"""News of work in progress: a trial in training, or a model being scored."""

from dataclasses import dataclass, field
from typing import Literal

STARTED: Literal["started"] = "started"
PROGRESS: Literal["progress"] = "progress"
RETRY: Literal["retry"] = "retry"
ENDED: Literal["ended"] = "ended"


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial or to a scoring job."""

    key: str
    """What the event is about: a trial's id, or the name of a score file."""
    kind: Literal["started", "progress", "retry", "ended"]
    """retry: the process died and the work starts again."""
    done: int = 0
    """Optimiser steps taken, or requests scored."""
    total: int = 0
    unit: str = ""
    """Scoring: lm-eval's request type."""
    status: str = ""
    """ended: finished, diverged or failed."""
    error: str = ""
    """Why it diverged or failed."""
    note: str = ""
    """What the worker has to say about the trial; the same in every event of an attempt."""
    train_loss: float | None = None
    val_loss: float | None = None
    tokens_per_s: float | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    """Scoring: why a task was left out, by task name."""
