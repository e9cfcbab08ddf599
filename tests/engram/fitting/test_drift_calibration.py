"""A small part of the benchmark, always the same sweeps; the bars are those of docs/fitting.md less what so few sweeps scatter."""

import numpy as np
import pytest

from engram.fitting.drift_calibration import FAMILIES, Design, coverage, synthesize, table

BY_NAME = {family.name: family for family in FAMILIES}


@pytest.fixture(scope="module")
def moving():
    names = ("parabola", "lopsided 0.6", "wall stays 0.6", "corner 0.5", "parabola, gain shrinks", "lopsided, at once")
    return coverage(3, [Design(3, 5, 0.5)], [0.12], [BY_NAME[name] for name in names], replicates=200)


@pytest.fixture(scope="module")
def still():
    return coverage(
        3, [Design(3, 5), Design(1, 3)], [0.0], [BY_NAME[name] for name in ("quartic", "corner, gain shrinks", "to 0", "flat")], 200
    )


def test_slopes_and_forecasts_are_covered(moving, still):
    for rows in (moving, still):
        assert np.nanmean([row.covered for row in rows]) >= 0.9
        assert np.mean([row.forecast_covered for row in rows]) >= 0.85
        assert np.mean([row.tilt_covered for row in rows]) >= 0.85


def test_movements_are_shown(moving):
    assert np.mean([row.shown for row in moving]) >= 0.5
    assert np.mean([row.width for row in moving]) < 0.3


def test_movements_are_not_shown_where_there_are_none(still):
    assert np.mean([row.shown for row in still]) <= 0.05


def test_table(moving, still):
    text = table([*moving, *still])
    assert "| lopsided 0.6 |" in text
    assert "| 3 seeds, 5 budgets, alike 0.5, +0.12 |" in text
    assert "| flat | - / " in text


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_families_are_what_their_names_say(family):
    number = family.name.split(",")[0].split()[-1]
    if number.startswith("0."):
        assert family.lowest(0.0, 0.1) == pytest.approx(float(number), abs=0.002)
        assert float(family.at(np.array([1.0]), 0.0, 0.1)[0]) == pytest.approx(1)
    if "gain" in family.name:
        low, high = (float(family.at(np.array([1.0]), decades, 0.0)[0]) for decades in (-1, 1))
        assert (low > high) == ("shrinks" in family.name)


def test_noise_of_neighbouring_budgets_is_alike():
    def share(correlation):
        curves, _ = synthesize(BY_NAME["flat"], 0.0, Design(50, 2, correlation), np.random.default_rng(0))
        first, second = (curve.loss.reshape(-1, 50) for curve in curves)
        return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(first - first.mean(axis=0), second - second.mean(axis=0), strict=True)])

    # Documents that differ from trial to trial make the rest
    assert share(0.0) == pytest.approx(0, abs=0.15)
    assert share(0.9) > 0.4
