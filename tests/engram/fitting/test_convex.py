"""The set of minima of convex curves: what is known exactly, and what noise makes of it."""

import numpy as np
import pytest

from engram.fitting.convex import minimum_set
from engram.fitting.optimum import fit_allocation
from tests.engram.fitting.conftest import make_sweep

X = np.array([0, 0.2, 0.4, 0.55, 0.7, 0.85, 1.0])


def without_noise(curve):
    rng = np.random.default_rng(0)
    return minimum_set(X, curve(X), 1e-12 * np.eye(len(X)), 1e-6 * rng.standard_normal((400, len(X))))


def test_the_minimum_lies_between_the_neighbours_of_the_lowest_point():
    """With values 0.1, 0, 0.05 at 0.2, 0.4, 0.55, lower points than 0 fit on both sides of 0.4, but none beyond 0.2 or 0.55."""
    low, high = without_noise(lambda x: np.interp(x, X, [0.4, 0.1, 0, 0.05, 0.2, 0.4, 0.7]))
    assert 0.2 <= low < 0.4 < high <= 0.55


def test_slopes_bound_the_minimum():
    """Equal values at 0.2 and 0.4: the curve may have come down to them at once after 0, where no point before says how steep it is; but
    it can't stay down beyond 0.4, for to reach 0.55 from there it would have to be steeper than it is after 0.55."""
    low, high = without_noise(lambda x: np.abs(x - 0.3))
    assert (low, high) == (pytest.approx(0, abs=0.03), pytest.approx(0.4, abs=0.001))


@pytest.mark.parametrize(("slope", "end"), [(1, 0), (-1, 1)])
def test_a_curve_that_only_falls_has_its_minimum_in_the_last_stretch(slope, end):
    low, high = without_noise(lambda x: slope * x)
    assert low <= end <= high
    assert high - low <= 0.2


def test_a_flat_curve_leaves_everything_open():
    assert without_noise(lambda x: 0 * x) == (0, 1)


def test_units_and_level_of_the_losses_change_nothing():
    rng = np.random.default_rng(1)
    means, errors = (X - 0.5) ** 2 + rng.normal(0, 0.02, len(X)), 0.02 * rng.standard_normal((300, len(X)))
    first = minimum_set(X, means, 4e-4 * np.eye(len(X)), errors)
    assert minimum_set(X, 10 * means + 3, 4e-2 * np.eye(len(X)), 10 * errors) == pytest.approx(first, abs=1e-6)


def test_more_noise_leaves_more_open():
    few, many = (fit_allocation(make_sweep(lambda rho: 0.2 * (rho - 0.5) ** 2, noise=sd), replicates=300) for sd in (0.003, 0.02))
    assert many.rho_star.high - many.rho_star.low > few.rho_star.high - few.rho_star.low


@pytest.mark.parametrize("optimum", [0.05, 0.95])
def test_minima_near_an_end_are_not_ruled_out(optimum):
    """Curves that bend at once beyond the last measured rho but one: smooth forms can't, and their interval leaves the truth out."""

    def corner(rho):
        return 0.1 * np.where(rho < optimum, optimum - rho, rho - optimum) / max(optimum, 1 - optimum)

    covered = []
    for number in range(10):
        fit = fit_allocation(make_sweep(corner, seeds=8, rng=number), replicates=300)
        covered.append(fit.rho_star.low <= optimum <= fit.rho_star.high)
    assert np.mean(covered) >= 0.9
