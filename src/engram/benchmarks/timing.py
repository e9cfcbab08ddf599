"""Measuring times that can be compared on a machine that is not quiet.

Cases take turns, round by round, in one process; what is compared is compared within a round, and the median over the rounds is
given with their range. A machine that is slow for a minute is then slow for all cases alike.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

Clock = Callable[[], float]
"""Seconds since some moment."""
Turn = Callable[[float], float]
"""Runs a case for at least so many seconds, once at least; returns the seconds of one call."""
Report = Callable[[str, int, int | None], None]
"""Takes a stage, how much of it is done and how much there is."""


FEWEST = 6
"""Rounds below which the range of the values is no 95 % interval of their median yet"""


@dataclass(frozen=True)
class Measured:
    """Median over the rounds, and their range or the interval of the median."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """From one value a round."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def interval(cls, values: Sequence[float]) -> Self:
        """The same with the 95 % interval of the median, from the order of the values alone; their range where they are fewer than six.

        Of n values each lies below the median with probability 1/2, so at most k of them do with P(Binomial(n, 1/2) <= k).
        """
        n, ordered = len(values), sorted(values)
        if n < FEWEST:
            return cls.of(values)
        outside, below = 0, 0
        while (below + math.comb(n, outside)) / 2**n <= 0.025:
            below += math.comb(n, outside)
            outside += 1
        return cls(statistics.median(values), ordered[outside - 1], ordered[n - outside])


@dataclass(frozen=True)
class Case:
    """Something that is measured."""

    turn: Turn
    share: float = 1.0
    """Its share of the time that a case gets: many small parts need not take as long as whole steps."""


Times = dict[str, list[float]]
"""Seconds of one call by case, one number a round."""


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def calls(
    function: Callable[[], object],
    device: torch.device,
    before: Callable[[], None] | None = None,
    clock: Clock = time.perf_counter,
) -> Turn:
    """The turn of a plain function.

    Args:
        function: what is measured.
        device: where it works.
        before: called once a turn, outside of the time.
        clock: what time is taken from.
    """

    def turn(seconds: float) -> float:
        if before is not None:
            before()
        synchronise(device)
        started, done = clock(), 0
        while True:
            function()
            synchronise(device)
            done += 1
            elapsed = clock() - started
            if elapsed >= seconds:
                return elapsed / done

    return turn


def interleave(cases: Mapping[str, Case], rounds: int, seconds: float, report: Report | None = None, stage: str = "measuring") -> Times:
    """Measure all cases in turn, in the opposite order every other round.

    Args:
        cases: what is measured, by name.
        rounds: rounds that count; one more runs before them and warms everything up.
        seconds: time for a case of share 1, all rounds that count together.
        report, stage: told how many rounds are done.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; at least one is needed")
    times: Times = {name: [] for name in cases}
    for number in range(rounds + 1):
        if report is not None:
            report(stage, number, rounds + 1)
        names = list(cases)
        for name in names if number % 2 else reversed(names):
            took = cases[name].turn(cases[name].share * seconds / rounds)
            if number:
                times[name].append(took)
    if report is not None:
        report(stage, rounds + 1, rounds + 1)
    return times


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Measured:
    """Ratio of two cases that were measured in the same rounds: taken round by round."""
    return Measured.of(_ratios(numerators, denominators))


def paired_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Measured:
    """The same with the 95 % interval of the median ratio."""
    return Measured.interval(_ratios(numerators, denominators))


def _ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def rates(times: Sequence[float], amount: float) -> Measured:
    """`amount` a call -> so much a second."""
    return Measured.of([amount / seconds for seconds in times])
