"""What trials reach side by side on one device: the findings of `benchmarks.pack`."""

from collections.abc import Sequence
from dataclasses import dataclass

from engram.benchmarks.results.machine import Machine
from engram.benchmarks.results.measured import Measured

WORTH = 1.05
"""How many times the tokens per second of fewer trials more of them must reach to be worth their memory."""


@dataclass(frozen=True)
class PackedTrials:
    """A number of trials that ran at the same time."""

    workers: int
    tokens_per_s: list[Measured]
    """Of each trial."""
    together: Measured
    """Of all trials, over the rounds."""


@dataclass(frozen=True)
class Pack:
    """What `measure_pack` found."""

    machine: Machine
    tokens_per_step: int
    counts: list[PackedTrials]
    """By rising number of trials."""
    mps: bool
    """Whether the processes share the GPU through NVIDIA's MPS; otherwise they take turns."""
    problem: str | None
    """Why larger numbers were not measured."""

    @property
    def best(self) -> int:
        """The number of trials that pays."""
        return worthwhile([(packed.workers, packed.together.median) for packed in self.counts])


def worthwhile(found: Sequence[tuple[int, float]]) -> int:
    """The number of trials up to which every larger number that was measured trained more by `WORTH`.

    Args:
        found: pairs of a number of trials and their tokens per second together, by rising number.
    """
    best, most = found[0]
    for workers, together in found[1:]:
        if together < WORTH * most:
            break
        best, most = workers, together
    return best
