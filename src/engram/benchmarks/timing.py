"""Times that can be compared although the machine is not quiet.

Cases take turns, round by round, in one process. Cases are compared within each round, and the median over the rounds is given with their
range. A machine that is slow for a minute is then slow for all cases alike.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from engram.benchmarks.results import Measured

Clock = Callable[[], float]
"""Seconds since some fixed moment."""
Turn = Callable[[float], float]
"""Runs a case for at least the given seconds, at least once; returns the seconds per call."""
Report = Callable[[str, int, int | None], None]
"""Called with a stage, how much of it is done, and how much there is in all (None: unknown)."""


@dataclass(frozen=True)
class Case:
    """Something that is measured."""

    turn: Turn
    share: float = 1.0
    """Its share of the time per case: many small parts need not run as long as whole steps."""


Times = dict[str, list[float]]
"""Seconds per call by case, one number per round."""


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def calls(
    function: Callable[[], object],
    device: torch.device,
    before: Callable[[], None] | None = None,
    clock: Clock = time.perf_counter,
) -> Turn:
    """A turn of plain function calls.

    Args:
        function: what is measured.
        device: that it uses.
        before: called once per turn, not timed.
        clock: to measure with.
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
        rounds: that count; one more before them warms everything up.
        seconds: time for a case of share 1, over all rounds that count.
        report: told how many rounds are done.
        stage: name that `report` is given.
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
    """Ratio of two cases that were measured in the same rounds, taken round by round."""
    return Measured.of(_ratios(numerators, denominators))


def paired_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Measured:
    """The same with the 95 % interval of the median ratio."""
    return Measured.interval(_ratios(numerators, denominators))


def _ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def rates(times: Sequence[float], amount: float) -> Measured:
    """Amount per second, from the seconds per call and the `amount` per call."""
    return Measured.of([amount / seconds for seconds in times])
