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


def floor(x):
    """Falls for two decades and no further."""
    return -0.05 * np.minimum(np.log10(x / 1e3), 2)


def evened(sweep):
    """What is hard about a document for all trials taken out, as engramctl does: its choice moves no level."""
    hardness = sweep.loss_sum.mean(axis=0)
    sweep.loss_sum[:] += sweep.n_tokens * (hardness.sum() / sweep.n_tokens.sum()) - hardness
    return sweep


def at(fit, x):
    """Bounds of the band at x."""
    return np.interp(np.log(x), np.log(fit.band.x), fit.band.low), np.interp(np.log(x), np.log(fit.band.x), fit.band.high)


def test_log_linear_parameters_come_back():
    fit = fit_memory(make_sweep(log_linear, x=SLOTS, noise=0.003, rng=1), replicates=300)
    for change in (fit.parameters["log-linear"]["slope"], fit.per_tenfold):
        assert change.low <= -0.05 <= change.high
        assert change.high - change.low < 0.02
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
    assert exact.form == "power-law"
    linear = fit_memory(make_sweep(log_linear, x=SLOTS, seeds=seeds, noise=0, between=0), replicates=50)
    assert linear.parameters["log-linear"]["slope"].estimate == pytest.approx(-0.05, abs=1e-6)
    assert linear.per_tenfold.estimate == pytest.approx(-0.05, abs=1e-4)


def test_probabilities_are_over_all_forms():
    fit = fit_memory(make_sweep(power, x=SLOTS), replicates=50)
    assert sum(fit.probability.values()) == pytest.approx(1)
    assert fit.probability.keys() == fit.cv_error.keys() >= {"log-linear", "power-law", "floor", "smooth"}
    assert fit.form == max(fit.probability, key=fit.probability.get)


def test_a_floor_is_not_extrapolated_as_a_fall():
    fit = fit_memory(evened(make_sweep(floor, x=SLOTS, noise=0.003)), replicates=300)
    assert fit.probability["log-linear"] < 0.01
    low, high = at(fit, 2e6)
    # Relative to the last measurement, whose level the seeds shift
    last = np.mean(at(fit, 1e6))
    assert low <= last <= high
    assert high - low < 0.06


def test_nobody_knows_that_a_straight_line_goes_on():
    """The band beyond the measurements widens by more than the slope's own interval, and a fall that ends at once is in it."""
    fit = fit_memory(evened(make_sweep(log_linear, x=SLOTS, noise=0.003, rng=1)), replicates=1000)
    (low, high), (end_low, end_high) = at(fit, 1e6), at(fit, 2e6)
    slope = fit.parameters["log-linear"]["slope"]
    assert (end_high - end_low) - (high - low) > np.log10(2) * (slope.high - slope.low)
    assert end_low < (low + high) / 2 < end_high


def test_curves_that_rise_again_are_covered():
    def bend(x):
        d = np.log10(x / 1e3)
        return np.maximum(-0.06 * d, -0.12 + 0.04 * (d - 2))

    fit = fit_memory(make_sweep(bend, x=SLOTS, noise=0.003, rng=2), replicates=300)
    assert fit.band.loss[-1] > fit.band.loss.min() + 0.01


def test_one_outlier_hardly_moves_the_fit():
    whole = make_sweep(power, x=SLOTS, noise=0.002, between=0.01)
    before = fit_memory(whole, replicates=50).parameters["power-law"]["exponent"].estimate
    whole.loss_sum[10] += 0.5 * whole.n_tokens
    fit = fit_memory(whole, replicates=50)
    after = fit.parameters["power-law"]["exponent"].estimate
    assert after == pytest.approx(before, abs=0.03)
    assert after == pytest.approx(0.3, abs=0.05)
    assert "Left out as outliers: x = 31622.8, seed 1" in fit.text


def test_band_ends_at_twice_the_most_slots():
    fit = fit_memory(make_sweep(power, x=SLOTS), replicates=300)
    assert fit.measured == (SLOTS[0], SLOTS[-1])
    assert fit.band.x[-1] == pytest.approx(2 * SLOTS[-1])
    assert (fit.band.low <= fit.band.loss).all()
    assert (fit.band.loss <= fit.band.high).all()
    assert all(np.isfinite(part).all() for part in (fit.band.loss, fit.band.low, fit.band.high))


def test_the_band_counts_that_seeds_are_a_sample():
    """With other seeds the whole curve would lie elsewhere; the change along it would not."""
    near, far = (evened(make_sweep(log_linear, x=SLOTS, noise=0.003, rng=3)) for _ in range(2))
    far.loss_sum[:] += np.array([-0.05, 0, 0.05])[far.seed][:, None] * far.n_tokens
    near, far = (fit_memory(sweep, replicates=500) for sweep in (near, far))
    assert (far.band.high - far.band.low).min() > 1.5 * (near.band.high - near.band.low).max()
    changes = [fit.per_tenfold.high - fit.per_tenfold.low for fit in (near, far)]
    assert changes[1] == pytest.approx(changes[0], rel=0.2)


def test_noisy_trials_at_one_end_widen_the_band_there():
    rng = np.random.default_rng(0)
    quiet, noisy = (evened(make_sweep(log_linear, x=SLOTS, seeds=5, noise=0.002)) for _ in range(2))
    last = noisy.x == noisy.x.max()
    noisy.loss_sum[last] += rng.normal(0, 0.03, (last.sum(), 1)) * noisy.n_tokens
    quiet, noisy = (fit_memory(sweep, replicates=500) for sweep in (quiet, noisy))
    widths = [(fit.band.high - fit.band.low)[[60, -1]] for fit in (quiet, noisy)]
    assert widths[1][1] - widths[1][0] > 1.3 * (widths[0][1] - widths[0][0])


def test_the_unit_of_loss_changes_nothing():
    sweep = make_sweep(power, x=SLOTS, noise=0.004)
    one = fit_memory(sweep, replicates=100)
    sweep.loss_sum[:] *= 1000
    other = fit_memory(sweep, replicates=100)
    assert other.band.high == pytest.approx(1000 * one.band.high, rel=1e-6)
    assert other.probability == pytest.approx(one.probability, abs=1e-6)


def test_a_seed_gives_the_same_fit():
    sweep = make_sweep(power, x=SLOTS, noise=0.004)
    one, same = (fit_memory(sweep, replicates=100, seed=4) for _ in range(2))
    assert (one.band.low == same.band.low).all()
    assert one.text == same.text


def test_more_slots_that_hurt_give_numbers():
    fit = fit_memory(make_sweep(lambda x: 0.05 * np.log10(x), x=SLOTS), replicates=100)
    assert fit.parameters["log-linear"]["slope"].low > 0
    assert fit.per_tenfold.low > 0
    assert all(np.isfinite([i.estimate, i.low, i.high]).all() for i in fit.parameters["power-law"].values())


def test_three_numbers_of_slots_leave_the_exponent_open():
    fit = fit_memory(make_sweep(power, x=SLOTS[::3], noise=0.02, seeds=1), replicates=300)
    exponent = fit.parameters["power-law"]["exponent"]
    assert exponent.high / exponent.low > 3
    assert max(fit.probability.values()) < 0.5


@pytest.mark.parametrize("x", [(1e3, 1e4), (0, 1e3, 1e4)])
def test_too_few_or_no_slots_are_refused(x):
    with pytest.raises(UserError, match="at least three"):
        fit_memory(make_sweep(lambda x: 0 * x, x=x))
