import json

import numpy as np
import pytest

from engram.errors import UserError
from engramctl.findings.fits import sweep_fits
from engramctl.findings.layers import LAYER_AXIS
from engramctl.findings.losses import Losses
from engramctl.present.json import fits_as_json
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import Series, finished

RHOS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.fixture
def u(make_row):
    """A U over rho at one budget."""

    def rows(budget=1e12, best=0.4, seeds=3, **more):
        noise = np.random.default_rng(0).normal(0, 0.001, (len(RHOS), seeds))
        return [
            make_row(r, s, budget=budget, val_loss=3 + 0.3 * (r - best) ** 2 + noise[i, s], **more)
            for i, r in enumerate(RHOS)
            for s in range(seeds)
        ]

    return rows


@pytest.fixture
def memory_rows(make_row):
    def rows(variant, slots, slope, seeds=2, **more):
        return [
            make_row(700_000 / (700_000 + 8 * n), s, variant=variant, axes=json.dumps({"design": variant}), n_slots=n, p_engram=8 * n,
                     p_sparse=700_000 + 8 * n, val_loss=3.3 + slope * np.log10(max(n, 1000) / 1000) + 0.002 * s, **more)
            for n in slots for s in range(seeds)
        ]  # fmt: skip

    return rows


@pytest.fixture
def fit(fill, tmp_path):
    """Fits of rows in a store, and the trials that were fitted."""

    def run(rows, missing=(), kinds=None, **declared):
        return sweep_fits(SweepResults.of_store(fill(tmp_path, rows, missing, **declared)), kinds)

    return run


def test_curves_and_their_drift(fit, u):
    fits = fit(u() + u(1e13, best=0.6))
    assert fits.kinds == ("allocation", "drift")
    one, two = fits.allocation[Series("3m", 1e12, "")], fits.allocation[Series("3m", 1e13, "")]
    assert one.rho_star.estimate == pytest.approx(0.4, abs=0.05)
    assert two.rho_star.estimate == pytest.approx(0.6, abs=0.05)
    assert one.verdict.kind == "interior"
    assert fits.drift["3m", ""].slope.estimate == pytest.approx(0.2, abs=0.07)
    data = fits_as_json(fits, bands=True)
    json.dumps(data, allow_nan=False)
    assert len(data["allocation"][0]["band"]["x"]) == len(one.band.x)
    assert {"size", "budget_flops", "variant", "form", "cv_error", "rho_star", "verdict"} <= data["allocation"][0].keys()
    assert "band" not in fits_as_json(fits, bands=False)["allocation"][0]


def test_the_band_is_of_the_curve_not_of_the_choice_of_documents(fill, u, tmp_path):
    store = fill(tmp_path, u())
    losses = Losses(store, finished(store.read_trials()))
    mine = losses.observations(np.ones(len(losses.trials), dtype=bool), "rho")
    assert mine.loss == pytest.approx(losses.trials["val_loss"].to_numpy())
    # Documents differ by two nats, what trials make of them by a hundredth.
    per_document = mine.loss_sum / mine.n_tokens
    assert np.ptp(losses.all.loss_sum / losses.all.n_tokens, axis=1).max() > 1.9
    assert np.ptp(per_document, axis=1).max() < 0.1
    between = losses.all.loss_sum[0] - losses.all.loss_sum[5]
    assert mine.loss_sum[0] - mine.loss_sum[5] == pytest.approx(between)
    fit = sweep_fits(SweepResults.of_store(store)).allocation[Series("3m", 1e12, "")]
    assert (fit.band.high - fit.band.low).max() < 0.05


def test_unfinished_series_have_no_fit(fit, u, make_row):
    fits = fit(u(), [make_row(r, budget=1e13) for r in RHOS])
    assert list(fits.allocation) == [Series("3m", 1e12, "")]
    assert fits.drift == {}


def test_memory(fit, memory_rows):
    slots = (4000, 16000, 64000, 256000)
    rows = memory_rows("engram", (0, *slots), -0.03) + memory_rows("over-encoding", slots, -0.015)
    fits = fit(rows, slots=[0, *slots])
    assert fits.kinds == ("memory",)
    engram, other = (fits.memory[Series("3m", 8.2e12, v)].parameters["log-linear"]["slope"].estimate for v in ("engram", "over-encoding"))
    assert (engram, other) == (pytest.approx(-0.03, abs=1e-3), pytest.approx(-0.015, abs=1e-3))
    none = fits.no_memory["3m", 8.2e12]
    assert none.loss == pytest.approx(3.301)
    assert none.difference.paired.n_pairs == 2
    gain = fits.memory_gain[Series("3m", 8.2e12, "over-encoding")]
    assert gain.n_slots == 256000
    assert gain.difference.paired.difference.estimate == pytest.approx(-0.015 * np.log10(256), abs=1e-6)


def test_too_few_slots_for_a_law(fit, memory_rows):
    fits = fit(memory_rows("engram", (4000, 16000), -0.03), slots=[4000, 16000])
    assert fits.memory == {}
    assert fits.no_memory == {}


def test_variants_are_paired_by_seed_with_the_first(fit, variant_rows):
    rows = variant_rows("part", "full", [3.0, 3.2, 3.1]) + variant_rows("part", "no gate", [3.05, 3.25, None])
    rows += variant_rows("part", "none", [3.2, None, 3.3], rho=1.0) + variant_rows("part", "bad", [None, None, None])
    fits = fit(rows, axes={"part": {}})
    assert fits.kinds == ("variants",)
    gate, none, bad = fits.variants
    assert (gate.variant, gate.reference, gate.rho) == ("no gate", "full", 0.5)
    assert gate.difference.by_seed == {0: pytest.approx(0.05), 1: pytest.approx(0.05)}
    # Its only rho is another one: it is still compared.
    assert (none.rho, none.reference_rho, none.difference.paired.n_pairs) == (1.0, 0.5, 2)
    assert bad.difference is None
    assert np.isnan(bad.loss)


def test_variants_over_several_rhos_are_compared_at_each(fit, u):
    fits = fit(u(variant="a") + u(variant="b", best=0.7))
    assert fits.kinds == ("allocation", "variants")
    assert [one.rho for one in fits.variants] == list(RHOS)


def test_layers(fit, variant_rows):
    def layer(layers, losses, **more):
        return variant_rows(LAYER_AXIS, f"layers={json.dumps(layers)}", losses, memory_layers=layers, **more)

    rows = layer([0], [3.1, 3.12]) + layer([1], [3.0, 3.02]) + layer([1, 3], [2.98, 3.0]) + layer([2], [3.05, None])
    fits = fit(rows)
    assert fits.kinds == ("variants", "layers")
    assert [one.layers for one in fits.layers] == [(0,), (1,), (2,), (1, 3)]
    assert [one.loss for one in fits.layers] == pytest.approx([3.11, 3.01, 3.05, 2.99])
    # The mean is over the layers that have both seeds.
    assert [one.difference.paired.difference.estimate for one in fits.layers] == pytest.approx([0.05, -0.05, 0.0, -0.07])
    assert [one.difference.paired.n_pairs for one in fits.layers] == [2, 2, 1, 2]


def test_nothing_finished_in_a_group_is_still_listed(fit, variant_rows):
    label = f"layers={json.dumps([0])}"
    rows = variant_rows(LAYER_AXIS, label, [3.0], budget=1e12) + variant_rows(LAYER_AXIS, "layers=[1]", [3.0], budget=1e12)
    missing = variant_rows(LAYER_AXIS, label, [3.0], budget=2e12) + variant_rows(LAYER_AXIS, "layers=[1]", [3.0], budget=2e12)
    axes = {LAYER_AXIS: {label: {LAYER_AXIS: [0]}, "layers=[1]": {LAYER_AXIS: [1]}}}
    fits = fit(rows, missing, axes=axes)
    assert [(one.budget_flops, len(one.losses)) for one in fits.layers] == [(1e12, 1), (1e12, 1), (2e12, 0), (2e12, 0)]
    assert [one.difference is None for one in fits.variants] == [False, True]


def test_a_trial_without_documents_is_named(fill, u, tmp_path):
    store = fill(tmp_path, u())
    row = u()[3]
    (store.documents / f"{row['trial_id']}.parquet").unlink()
    with pytest.raises(UserError, match=f"{row['trial_id']} of sweep allocation has no documents"):
        sweep_fits(SweepResults.of_store(store))
