"""What one GPU does with its time: the findings of `benchmarks.gpu`, and what they are held against."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GpuPart:
    """A measurement, whole or as far as it came."""

    name: str
    wall_s: float
    """With the start of its process."""
    problem: str | None
    """Why it did not come to its end."""
    values: dict[str, Any]
    """What it found, by name: numbers, or mappings and lists of them."""


@dataclass(frozen=True)
class Bar:
    """What a number is held against."""

    what: str
    found: float | None
    """None where it was not measured."""
    wanted: float
    most: bool
    """Whether it may be at most, not at least, this."""
    unit: str
    """share, times, tokens/s, s, FLOP/s or nats."""

    @property
    def holds(self) -> bool | None:
        """None where nothing was measured."""
        if self.found is None:
            return None
        return self.found <= self.wanted if self.most else self.found >= self.wanted
