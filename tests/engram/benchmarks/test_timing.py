import pytest
import torch

from engram.benchmarks.results import Measured
from engram.benchmarks.timing import Case, calls, interleave, paired_ratio

CPU = torch.device("cpu")


class Clock:
    """Goes on only when something is done."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


def test_a_turn_lasts_as_long_as_it_is_told_and_gives_the_time_of_one_call():
    clock, log = Clock(), []

    def work():
        log.append("work")
        clock.spend(0.25)

    def prepare():
        log.append("prepare")
        clock.spend(7)

    turn = calls(work, CPU, before=prepare, clock=clock)
    assert turn(0.9) == pytest.approx(0.25)
    assert log == ["prepare", *["work"] * 4]
    assert turn(0.0) == pytest.approx(0.25)
    assert log[5:] == ["prepare", "work"]


def test_cases_take_turns_and_the_first_round_is_forgotten():
    log, stages = [], []

    def case(name, share):
        return Case(lambda seconds: log.append((name, seconds)) or float(len(log)), share)

    times = interleave({"a": case("a", 1.0), "b": case("b", 0.1)}, rounds=2, seconds=4.0, report=lambda *given: stages.append(given))
    assert [name for name, _ in log] == ["b", "a", "a", "b", "b", "a"]
    assert {seconds for name, seconds in log if name == "a"} == {2.0}
    assert {seconds for name, seconds in log if name == "b"} == {0.2}
    assert times == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert stages[0] == ("measuring", 0, 3)
    assert stages[-1] == ("measuring", 3, 3)


def test_no_rounds_is_a_mistake():
    with pytest.raises(ValueError, match="rounds is 0"):
        interleave({}, 0, 1.0)


def test_a_ratio_is_taken_round_by_round():
    """A machine that is ten times slower in one round does not change it; medians of the times would not do."""
    assert paired_ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == Measured(2.0, 2.0, 2.2)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [1.0, 2.0])
