import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.errors import UserError
from engram.training.speed import Speed
from engramctl.sweep.budget import SAFETY, fit_wall_time, makespan
from engramctl.sweep.build import expand
from engramctl.sweep.files import find_sweep, load_sweep


def make_trials(**changes):
    spec = load_sweep(find_sweep("allocation"), changes)
    return expand(spec, [1e30], 512, "c", "t")


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.integers(1, 8))
def test_makespan_lies_between_its_bounds(durations, workers):
    span = makespan(durations, workers)
    assert span <= sum(durations) + 1e-9
    assert span >= max(max(durations), sum(durations) / workers) - 1e-9
    assert makespan(durations, 1) == pytest.approx(sum(durations))


@settings(max_examples=30, deadline=None)
@given(st.floats(60, 1e5), st.floats(0.01, 1), st.integers(1, 5))
def test_the_budget_fits_and_a_larger_one_would_not(seconds, step_s, workers):
    trials = make_trials()
    speed = Speed(setup_s=1.0, step_s=step_s, validation_s=0.1)
    flops = fit_wall_time(seconds, trials, {"1m": speed}, workers)
    per_step = trials[0].budget_flops / trials[0].train.steps

    def span(budget: float) -> float:
        return makespan([speed.trial_s(int(budget / per_step), 4)] * len(trials), workers)

    assert span(flops) <= SAFETY * seconds
    assert span(flops * 1.2 + per_step) > SAFETY * seconds


def test_no_time_for_a_step():
    with pytest.raises(UserError, match="wall time of 3 s is too short: 8 trials"):
        fit_wall_time(3, make_trials(), {"1m": Speed(1.0, 0.1, 0.1)}, 2)
