import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.errors import UserError
from engram.fitting.optimum import fit_allocation, minimum
from engram.fitting.results import Observations
from tests.engram.fitting.conftest import make_sweep, select

FEW = 300


def numbers(fit):
    """All that a fit says in numbers, but the replicates."""
    intervals = (fit.rho_star, fit.gain, fit.crossing)
    return np.array([value for interval in intervals for value in dataclasses.astuple(interval)] + [fit.noise_sd])


@pytest.mark.parametrize("optimum", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_curve_without_noise_is_found(optimum, seeds):
    fit = fit_allocation(make_sweep(lambda rho: 0.2 * (rho - optimum) ** 2, seeds=seeds, noise=0, between=0), replicates=FEW)
    assert fit.rho_star.estimate == pytest.approx(optimum, abs=0.02)
    assert fit.gain.estimate == pytest.approx(0.2 * (1 - optimum) ** 2, abs=5e-4)
    assert fit.verdict.kind == "interior"
    assert fit.verdict.further_seeds == 0
    if optimum > 0.5:
        assert fit.crossing.estimate == pytest.approx(2 * optimum - 1, abs=0.02)
        assert fit.crossing.low <= fit.crossing.estimate <= fit.crossing.high


def test_memory_that_only_helps():
    fit = fit_allocation(make_sweep(lambda rho: 0.08 * rho), replicates=FEW)
    assert (fit.verdict.kind, fit.verdict.further_seeds) == ("memory-helps", 0)
    assert f"minimum lies at {fit.rho_star.high:.2f} at most" in fit.verdict.text
    assert fit.rho_star.low == 0
    assert fit.gain.low > 0.05


def test_memory_that_only_hurts():
    fit = fit_allocation(make_sweep(lambda rho: -0.08 * rho), replicates=FEW)
    assert fit.verdict.kind == "experts-help"
    assert f"minimum lies at {fit.rho_star.low:.2f} at least" in fit.verdict.text
    assert fit.rho_star.high == 1
    assert fit.gain.low <= 0 <= fit.gain.high


def test_nothing_is_not_distinguishable():
    fit = fit_allocation(make_sweep(lambda rho: 0 * rho), replicates=FEW)
    assert fit.verdict.kind == "not-distinguishable"
    assert fit.gain.low <= 0 <= fit.gain.high
    assert fit.rho_star.low == 0
    assert fit.rho_star.high > 0.9


def test_a_hint_asks_for_seeds():
    fit = fit_allocation(make_sweep(lambda rho: 0.06 * (rho - 0.45) ** 2, seeds=2, noise=0.008, between=0.01, rng=3), replicates=FEW)
    assert fit.verdict.kind == "not-distinguishable"
    assert fit.verdict.further_seeds
    assert f"about {fit.verdict.further_seeds} further seed" in fit.verdict.text


@pytest.mark.parametrize("rhos", [(1,), (0, 1), (0, 0.5, 1)])
def test_three_rhos_are_too_few(rhos):
    fit = fit_allocation(make_sweep(lambda rho: rho, x=rhos), replicates=FEW)
    assert fit.verdict.kind == "too-few-points"
    assert fit.band is None
    assert fit.n_seeds == 3


def test_without_rho_one_the_gain_is_not_told():
    fit = fit_allocation(make_sweep(lambda rho: 0.4 * (rho - 0.5) ** 2, x=(0, 0.2, 0.4, 0.6, 0.8, 0.9)), replicates=FEW)
    assert fit.verdict.kind == "interior"
    assert "below rho = 0.9" in fit.verdict.text
    assert "no trials at rho = 1" in fit.verdict.text
    assert np.isnan([fit.gain.estimate, fit.crossing.estimate, fit.verdict.p_over_one]).all()
    assert fit.verdict.p_over_lowest < 0.05


@pytest.mark.parametrize("keep", ["one seed", "one trial gone", "seeds differ by rho", "seeds apart"])
def test_unbalanced_designs(keep):
    whole = make_sweep(lambda rho: 0.3 * (rho - 0.5) ** 2, rng=5)
    rows = {
        "one seed": whole.seed == 0,
        "one trial gone": np.arange(len(whole.x)) != 4,
        "seeds differ by rho": (whole.seed == 0) | (whole.x > 0.6),
        "seeds apart": (whole.seed == 0) ^ (whole.x > 0.6) & (whole.seed < 2),
    }[keep]
    fit = fit_allocation(select(whole, rows), replicates=FEW)
    assert fit.rho_star.low <= 0.5 <= fit.rho_star.high
    assert fit.gain.low <= 0.075 <= fit.gain.high
    assert fit.n_seeds == {"one seed": 1, "one trial gone": 2, "seeds differ by rho": 1, "seeds apart": 0}[keep]
    assert np.isfinite(fit.band.low).all()
    assert fit.noise_sd > 0


def test_a_missing_trial_does_not_bring_in_the_effect_of_its_seed():
    whole = make_sweep(lambda rho: 0.3 * (rho - 0.5) ** 2, noise=0, between=0)
    bent = dataclasses.replace(whole, loss_sum=whole.loss_sum + np.where(whole.seed == 2, 0.5, 0)[:, None] * whole.n_tokens)
    fit = fit_allocation(select(bent, np.arange(len(bent.x)) != 11), replicates=FEW)
    assert fit.rho_star.estimate == pytest.approx(0.5, abs=0.02)


def test_one_training_that_went_wrong_is_left_out_and_named():
    whole = make_sweep(lambda rho: 0.3 * (rho - 0.5) ** 2)
    wrong = np.flatnonzero((whole.x == 0.55) & (whole.seed == 1))
    whole.loss_sum[wrong] += 0.4 * whole.n_tokens
    fit = fit_allocation(whole, replicates=FEW)
    assert "Left out as outliers: x = 0.55, seed 1 (+0.4" in fit.verdict.text
    assert fit.rho_star.low <= 0.5 <= fit.rho_star.high
    assert fit.noise_sd < 0.012


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 2**16), st.sampled_from([-2.0, 0.5, 7.0]))
def test_level_and_order_of_trials_do_not_matter(seed, level):
    whole = make_sweep(lambda rho: 0.3 * (rho - 0.6) ** 2, rng=seed)
    reference = fit_allocation(whole, replicates=FEW)
    lifted = dataclasses.replace(whole, loss_sum=whole.loss_sum + level * whole.n_tokens)
    order = np.random.default_rng(seed).permutation(len(whole.x))
    np.testing.assert_allclose(numbers(fit_allocation(lifted, replicates=FEW)), numbers(reference), atol=1e-6)
    np.testing.assert_allclose(numbers(fit_allocation(select(whole, order), replicates=FEW)), numbers(reference), atol=1e-9)


def test_order_of_documents_moves_only_the_drawing():
    whole = make_sweep(lambda rho: 0.3 * (rho - 0.6) ** 2)
    order = np.random.default_rng(0).permutation(len(whole.n_tokens))
    other = fit_allocation(Observations(whole.x, whole.seed, whole.loss_sum[:, order], whole.n_tokens[order]))
    fit = fit_allocation(whole)
    assert other.rho_star.estimate == pytest.approx(fit.rho_star.estimate, abs=1e-6)
    np.testing.assert_allclose(numbers(other)[:3], numbers(fit)[:3], atol=0.03)
    np.testing.assert_allclose(numbers(other)[3:6], numbers(fit)[3:6], atol=0.004)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("documents", [1, 50])
def test_losses_that_are_all_the_same_give_numbers(seeds, documents):
    same = make_sweep(lambda rho: 0 * rho, seeds=seeds, noise=0, between=0, documents=documents)
    same.loss_sum[:] = 3.0 * same.n_tokens
    fit = fit_allocation(same, replicates=FEW)
    assert np.isfinite(numbers(fit)[:6]).all()
    assert fit.verdict.kind == "not-distinguishable"


def test_same_seed_same_fit():
    whole = make_sweep(lambda rho: 0.3 * (rho - 0.6) ** 2)
    first, second, other = (fit_allocation(whole, replicates=FEW, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.band.high, second.band.high)
    assert (first.band.high != other.band.high).any()


@pytest.mark.parametrize("bad", ["nan", "shape", "tokens", "empty"])
def test_what_is_no_sweep_is_refused(bad):
    whole = make_sweep(lambda rho: rho)
    if bad == "nan":
        whole.loss_sum[0, 0] = np.nan
    if bad == "tokens":
        whole.n_tokens[0] = 0
    if bad == "shape":
        whole = dataclasses.replace(whole, seed=whole.seed[1:])
    if bad == "empty":
        whole = select(whole, np.zeros(len(whole.x), bool))
    with pytest.raises(UserError):
        fit_allocation(whole)


def test_bounds_hold_their_estimates():
    for rng in range(6):
        fit = fit_allocation(make_sweep(lambda rho: 0.1 * (rho - 0.9) ** 2, seeds=1, noise=0.02, rng=rng), replicates=FEW)
        for interval in (fit.rho_star, fit.loss_min, fit.gain):
            assert interval.low <= interval.estimate <= interval.high
        assert fit.rho_star.low >= 0
        assert fit.rho_star.high <= 1
        assert len(fit.band.x) >= 101
        assert (fit.band.low <= fit.band.high).all()


def test_minimum_between_grid_points_of_a_parabola():
    grid = np.linspace(0, 1, 11)
    place, value = minimum(grid, np.array([(grid - 0.437) ** 2 + 2, grid, -grid]))
    np.testing.assert_allclose(place, [0.437, 0, 1])
    np.testing.assert_allclose(value, [2, 0, -1])


def test_speed():
    whole = make_sweep(lambda rho: 0.3 * (rho - 0.6) ** 2, documents=2000)
    began = time.process_time()
    fit_allocation(whole)
    assert time.process_time() - began < 4  # a quarter of a second on an idle core
