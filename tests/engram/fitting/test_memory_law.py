import numpy as np
import pytest

from engram.errors import UserError
from engram.fitting.memory_law import fit_memory
from tests.engram.fitting.conftest import make_sweep

SLOTS = tuple(np.geomspace(1e3, 1e6, 7))


def power(x):
    return 2.0 * x**-0.3


def log_linear(x):
    return 1 - 0.05 * np.log10(x)


def test_log_linear_parameters_come_back():
    fit = fit_memory(make_sweep(log_linear, x=SLOTS, noise=0.003, rng=1), replicates=300)
    assert fit.form == "log-linear"
    slope = fit.parameters["log-linear"]["slope"]
    assert slope.low <= -0.05 <= slope.high
    assert slope.high - slope.low < 0.02
    assert "Ten times the slots" in fit.text


def test_power_law_parameters_come_back():
    fit = fit_memory(make_sweep(power, x=SLOTS, noise=0.003, rng=1), replicates=300)
    assert fit.form == "power-law"
    for name, true in (("exponent", 0.3), ("scale", 2.0)):
        interval = fit.parameters["power-law"][name]
        assert interval.low <= true <= interval.high
    assert "to the power -0." in fit.text


@pytest.mark.parametrize("seeds", [1, 3])
def test_exact_without_noise(seeds):
    exact = fit_memory(make_sweep(power, x=SLOTS, seeds=seeds, noise=0, between=0), replicates=50)
    found = exact.parameters["power-law"]
    assert found["exponent"].estimate == pytest.approx(0.3, abs=1e-3)
    assert found["scale"].estimate == pytest.approx(2.0, rel=1e-2)
    linear = fit_memory(make_sweep(log_linear, x=SLOTS, seeds=seeds, noise=0, between=0), replicates=50)
    assert linear.parameters["log-linear"]["slope"].estimate == pytest.approx(-0.05, abs=1e-6)


def test_one_outlier_hardly_moves_the_fit():
    whole = make_sweep(power, x=SLOTS, noise=0.002, between=0.01)
    before = fit_memory(whole, replicates=50).parameters["power-law"]["exponent"].estimate
    whole.loss_sum[10] += 0.5 * whole.n_tokens
    after = fit_memory(whole, replicates=50).parameters["power-law"]["exponent"].estimate
    assert after == pytest.approx(before, abs=0.03)
    assert after == pytest.approx(0.3, abs=0.05)


def test_band_goes_ten_times_beyond_and_widens():
    fit = fit_memory(make_sweep(power, x=SLOTS), replicates=300)
    assert fit.measured == (SLOTS[0], SLOTS[-1])
    assert fit.band.x[-1] == pytest.approx(10 * SLOTS[-1])
    assert (fit.band.low <= fit.band.loss).all()
    assert (fit.band.loss <= fit.band.high).all()
    assert all(np.isfinite(part).all() for part in (fit.band.loss, fit.band.low, fit.band.high))


def test_more_slots_that_hurt_give_numbers():
    fit = fit_memory(make_sweep(lambda x: 0.05 * np.log10(x), x=SLOTS), replicates=100)
    assert fit.form == "log-linear"
    assert fit.parameters["log-linear"]["slope"].low > 0
    assert all(np.isfinite([i.estimate, i.low, i.high]).all() for i in fit.parameters["power-law"].values())


def test_three_numbers_of_slots_do_not_judge_a_power_law():
    fit = fit_memory(make_sweep(power, x=SLOTS[::3]), replicates=100)
    assert fit.form == "log-linear"
    assert set(fit.cv_error) == {"log-linear"}
    assert "at least four" in fit.text


@pytest.mark.parametrize("x", [(1e3, 1e4), (0, 1e3, 1e4)])
def test_too_few_or_no_slots_are_refused(x):
    with pytest.raises(UserError, match="at least three"):
        fit_memory(make_sweep(lambda x: 0 * x, x=x))
