import dataclasses
import time

import numpy as np
import pytest

from engram.errors import UserError
from engram.fitting.drift import describe, fit_drift
from engram.fitting.drift_layout import stack
from engram.fitting.layout import lay_out
from engram.fitting.optimum import fit_allocation
from engram.fitting.results import Interval, Observations
from tests.engram.fitting.conftest import RHOS, make_sweep, select

FEW = 300
BUDGETS = [1e12, 1e13, 1e14]


def fit(curves, budgets=BUDGETS, seed=0):
    fits = [fit_allocation(curve, replicates=FEW) for curve in curves]
    return fit_drift(budgets, curves, fits, replicates=FEW, seed=seed)


def parabolas(optima, noise=0.004, **how):
    return [make_sweep(lambda rho, o=o: 0.4 * (rho - o) ** 2, rng=i, noise=noise, **how) for i, o in enumerate(optima)]


@pytest.fixture(scope="module")
def curves():
    return parabolas([0.35, 0.5, 0.65])


@pytest.fixture(scope="module")
def moved(curves):
    return fit(curves)


def test_movement(moved, curves):
    assert 0 < moved.slope.low <= 0.15 <= moved.slope.high
    assert moved.moves == "up"
    assert moved.text.startswith(f"The best rho moves up by {moved.slope.estimate:+.2f} (")
    assert moved.p_change < 0.05
    backwards = fit(curves[::-1])
    assert backwards.moves == "down"
    assert backwards.slope.estimate == pytest.approx(-moved.slope.estimate, abs=0.02)


def test_tilt(moved):
    # 0.4 (rho - o)^2 has a slope of -0.8 o, and o grows by 0.15
    assert moved.tilt.low <= -0.12 <= moved.tilt.high < 0
    assert moved.p_tilt < 0.01
    assert "tilts towards experts" in moved.text


def test_no_movement():
    drift = fit(parabolas([0.5, 0.5]), BUDGETS[:2])
    assert drift.slope.low <= 0 <= drift.slope.high
    assert drift.moves == "not shown"
    assert "No movement of the best rho is shown" in drift.text
    assert "No tilt" in drift.text


def test_a_smaller_gain_is_a_change_but_no_movement():
    same = [make_sweep(lambda rho, h=h: h * (rho - 0.5) ** 2, rng=i, noise=0.004) for i, h in enumerate((0.6, 0.3, 0.15))]
    drift = fit(same)
    assert drift.p_change < 0.05
    assert drift.moves == "not shown"


def test_forecast(moved):
    ahead = moved.forecast(3e14)
    assert ahead.low <= 0.65 + 0.15 * np.log10(3) <= ahead.high
    assert ahead.low <= ahead.estimate <= ahead.high
    within = moved.forecast(1e13)
    assert within.estimate == pytest.approx(0.5, abs=0.05)
    assert moved.forecast(1e15).high - moved.forecast(1e15).low > within.high - within.low
    for budget in (9e11, 1.1e15):
        with pytest.raises(UserError, match=r"from 1e\+12 to 1e\+15 FLOPs"):
            moved.forecast(budget)
    with pytest.raises(UserError, match="no line"):
        dataclasses.replace(moved, band=None).forecast(1e13)


def test_a_minimum_beside_an_end_may_be_anywhere_in_its_cell():
    """Nothing is measured between 0 and 0.2: where the minimum is there can't be told, nor whether it moves."""
    drift = fit(parabolas([0.08, 0.08, 0.08], noise=0.002))
    assert drift.slope.low <= -0.05
    assert drift.slope.high >= 0.05
    assert drift.forecast(1e14).low == 0


def test_order_of_budgets_level_and_unit_change_nothing(curves, moved):
    mixed = fit([curves[1], curves[2], curves[0]], [BUDGETS[1], BUDGETS[2], BUDGETS[0]])
    assert mixed.slope == moved.slope
    louder = [Observations(c.x, c.seed, 2 * c.loss_sum + (b + 1) * c.n_tokens, c.n_tokens) for b, c in enumerate(curves)]
    other = fit(louder)
    assert dataclasses.astuple(other.slope) == pytest.approx(dataclasses.astuple(moved.slope), abs=0.02)
    assert dataclasses.astuple(other.tilt) == pytest.approx([2 * value for value in dataclasses.astuple(moved.tilt)])


def test_same_seed_same_drift(curves, moved):
    again, other = fit(curves), fit(curves, seed=1)
    assert again.slope == moved.slope
    np.testing.assert_array_equal(again.band.high, moved.band.high)
    assert other.slope != moved.slope


def test_needs_two_budgets_with_a_curve():
    three_rhos = make_sweep(lambda rho: rho, x=RHOS[:3])
    assert fit([*parabolas([0.5]), three_rhos], BUDGETS[:2]) is None
    assert fit(parabolas([0.5]), BUDGETS[:1]) is None
    with pytest.raises(UserError, match="every budget once"):
        fit(parabolas([0.5, 0.5]), [1e12, 1e12])


@pytest.mark.parametrize("seeds", [1, 2])
def test_sweeps_without_noise(seeds):
    drift = fit(parabolas([0.4, 0.5, 0.6], noise=0, between=0, seeds=seeds))
    assert drift.slope.estimate == pytest.approx(0.1, abs=0.03)
    assert np.isfinite([*dataclasses.astuple(drift.slope), *dataclasses.astuple(drift.tilt), drift.p_tilt]).all()


def test_flat_losses():
    same = make_sweep(lambda rho: 0 * rho, noise=0, between=0, seeds=2)
    level = np.array([3.0])
    flat = Observations(same.x, same.seed, np.tile(level * same.n_tokens, (len(same.x), 1)), same.n_tokens)
    drift = fit([flat, flat], BUDGETS[:2])
    assert drift.moves == "not shown"


def test_budgets_may_have_other_rhos_and_lack_trials(curves):
    first = select(curves[0], curves[0].x != 0.55)
    last = select(curves[2], np.arange(len(curves[2].x)) != 4)
    drift = fit([first, curves[1], last])
    assert drift.slope.low <= 0.15 <= drift.slope.high
    assert drift.moves == "up"


class TestStack:
    def test_documents_are_shared(self):
        whole = make_sweep(lambda rho: 0.4 * (rho - 0.5) ** 2, noise=0)
        k = len(RHOS)
        joint = stack([1e12, 1e13], [lay_out(whole), lay_out(whole)])
        np.testing.assert_allclose(joint.from_documents[:k, k:], joint.from_documents[:k, :k])
        other = make_sweep(lambda rho: 0.4 * (rho - 0.5) ** 2, noise=0, rng=1)
        apart = stack([1e12, 1e13], [lay_out(whole), lay_out(other)])
        assert not apart.from_documents[:k, k:].any()

    @pytest.mark.parametrize("correlation", [0.0, 0.8])
    def test_correlation_of_continued_trials_is_found(self, correlation):
        rng = np.random.default_rng(0)
        base = make_sweep(lambda rho: 0 * rho, noise=0, seeds=5)
        error, layouts = rng.normal(0, 0.01, len(base.x)), []
        for _ in range(5):
            layouts.append(lay_out(Observations(base.x, base.seed, base.loss_sum + error[:, None] * base.n_tokens, base.n_tokens)))
            error = correlation * error + np.sqrt(1 - correlation**2) * rng.normal(0, 0.01, len(base.x))
        found = stack(np.geomspace(1e12, 1e14, 5).tolist(), layouts).from_trials
        k = len(RHOS)
        share = [found[i, i + k] / np.sqrt(found[i, i] * found[i + k, i + k]) for i in range(k)]
        assert np.mean(share) == pytest.approx(correlation, abs=0.15)
        assert np.sqrt(5 * np.diag(found)).mean() == pytest.approx(0.01, abs=0.003)

    def test_noise_by_rho_and_budget(self):
        def noisy(budget, rng):
            scale = (1 + 2 * budget) * np.where(np.repeat(RHOS, 5) == 1, 3, 1)
            return make_sweep(lambda rho: 0 * rho, noise=0.004 * scale, seeds=5, rng=rng)

        found = stack([1e12, 1e13], [lay_out(noisy(budget, budget)) for budget in (0, 1)])
        sd = np.sqrt(np.diag(found.from_trials)).reshape(2, -1)
        assert (sd[:, -1] / np.median(sd, axis=1) > 1.8).all()
        assert np.median(sd[1] / sd[0]) == pytest.approx(3, abs=1)

    def test_contrasts_of_single_seeds(self, curves):
        joint = stack(BUDGETS, [lay_out(curve) for curve in curves])
        weight = np.linspace(-1, 1, len(joint.means))
        weight -= np.bincount(joint.budget, weight)[joint.budget] / np.bincount(joint.budget)[joint.budget]
        assert joint.of_seeds(weight).mean() == pytest.approx(weight @ joint.means)
        fewer = select(curves[2], np.arange(len(curves[2].x)) != 4)
        assert not len(stack(BUDGETS, [*(lay_out(curve) for curve in curves[:2]), lay_out(fewer)]).of_seeds(weight))


def test_words():
    up, tilt = Interval(0.12, 0.03, 0.2), Interval(0.03, 0.01, 0.05)
    assert describe(up, 0.01, tilt, 0.01, None).text == (
        "The best rho moves up by +0.12 (+0.03 to +0.20) for ten times the budget."
        " The curve tilts towards memory: its slope over rho changes by +0.030 nats (+0.010 to +0.050), p = 0.01."
    )
    # The interval alone leans on the forms of the curve: a change must be shown without any as well
    assert describe(up, 0.2, tilt, 0.01, None).moves == "not shown"
    level = describe(Interval(0.0, -0.1, 0.1), 0.5, Interval(0.0, -0.01, 0.01), 0.9, None)
    assert "one of more than 0.14 would probably have been seen" in level.text


def test_speed():
    curves = parabolas([0.4, 0.45, 0.5, 0.55, 0.6], documents=1000)
    fits = [fit_allocation(curve, replicates=FEW) for curve in curves]
    began = time.process_time()
    fit_drift(np.geomspace(1e12, 1e14, 5).tolist(), curves, fits)
    assert time.process_time() - began < 4  # half a second on an idle core
