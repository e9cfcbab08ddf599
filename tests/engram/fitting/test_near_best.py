"""The range of rho that is near the best: exact where there is no noise, and bounded from above where there is."""

import numpy as np
import pytest

from engram.errors import UserError
from engram.fitting.convex import lowest_possible
from engram.fitting.made_up import SHAPES, synthesize
from engram.fitting.optimum import fit_allocation
from tests.engram.fitting.conftest import make_sweep

X = np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0])
BY_NAME = {shape.name: shape for shape in SHAPES}


def deepest(values):
    return lowest_possible(X, np.array([values], dtype=float), 1e-6 * np.eye(len(X)))[0]


def test_without_noise_the_range_is_that_of_the_curve():
    near = fit_allocation(make_sweep(lambda rho: 0.2 * (rho - 0.5) ** 2, noise=0, between=0), replicates=300, margin=0.002).near_best
    assert (near.low, near.high) == (pytest.approx(0.4, abs=0.02), pytest.approx(0.6, abs=0.02))
    assert near.confidence > 0.75
    assert near.cost.loss == pytest.approx(0.2 * (near.cost.x - 0.5) ** 2, abs=5e-4)
    assert (near.cost.low <= near.cost.loss).all()
    assert (near.cost.loss <= near.cost.high).all()
    assert "Within 0.002 nats of the best: rho 0.40 to 0.60" in near.text


def test_a_larger_margin_gives_a_larger_range():
    sweep = make_sweep(lambda rho: 0.2 * (rho - 0.5) ** 2)
    small, large = (fit_allocation(sweep, replicates=300, margin=margin).near_best for margin in (0.002, 0.01))
    assert small.high - small.low < large.high - large.low


@pytest.mark.parametrize("margin", [0, -1, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(UserError, match="margin is"):
        fit_allocation(make_sweep(lambda rho: rho), replicates=300, margin=margin)


def test_chords_say_how_low_a_convex_curve_can_lie():
    assert deepest(np.abs(X - 0.5)) == pytest.approx(0)  # the chords of both sides meet at the corner
    assert deepest(1 - X) == pytest.approx(0)  # going on as before, 1 is the end
    # The last stretch: falling by 0.5 before, it may fall by 0.5 once more and then jump up to the last value
    assert deepest([2, 1.5, 1, 0.5, 0, 3]) == pytest.approx(-0.5)
    assert deepest([0.3] * 6) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["quadratic 0.37", "corner 0.5", "corner 0.95"])
def test_costs_are_not_above_their_bounds(name):
    shape, held, worst = BY_NAME[name], [], []
    for number in range(8):
        observations, height = synthesize(shape, 3, np.random.default_rng(number))
        near = fit_allocation(observations, replicates=300, seed=number).near_best
        held += (height * shape.curve(near.cost.x) <= near.cost.high + 1e-12).tolist()
        worst.append(height * shape.curve(np.linspace(near.low, near.high, 50)).max() <= near.worst + 1e-12)
    assert np.mean(held) >= 0.9
    assert np.mean(worst) >= 0.85
