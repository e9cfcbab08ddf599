"""A small part of the benchmark, always the same sweeps; the bars are those of docs/fitting.md less what so few sweeps scatter."""

import numpy as np
import pytest

from engram.fitting.memory_calibration import LAWS, coverage, synthesize, table

BY_NAME = {law.name: law for law in LAWS}
FEW = ("log-linear", "power 0.3", "hard floor", "bends up", "two-slope, steep last", "flat, noise x 3 at most")


@pytest.fixture(scope="module")
def rows():
    return coverage(6, (1, 3, 5), [BY_NAME[name] for name in FEW], replicates=200)


def test_bands_cover_the_curve_within_and_beyond_the_measurements(rows):
    assert np.mean([row.inside for row in rows]) >= 0.88
    assert np.mean([row.beyond for row in rows]) >= 0.88
    assert np.mean([row.per_tenfold for row in rows]) >= 0.88


def test_parameters_are_covered_where_their_law_is_true(rows):
    for name in ("slope", "exponent", "offset"):
        assert np.nanmean([getattr(row, name) for row in rows]) >= 0.8


def test_bands_are_of_use(rows):
    """Curves fall by 0.05 to 0.25 nats over three decades."""
    many = [row for row in rows if row.n_seeds == 5]
    assert np.mean([row.width_inside for row in many]) < 0.04
    assert np.mean([row.width_beyond for row in many]) < 0.08
    assert np.mean([row.width_per_tenfold for row in many]) < 0.02


def test_laws_begin_at_zero_and_fall_as_they_say():
    d = np.linspace(0, 3, 301)
    for law in LAWS:
        assert law.curve(d)[0] == pytest.approx(0, abs=1e-9)
        if law.slope is not None:
            assert law.curve(d) == pytest.approx(law.slope * d)
        if law.exponent is not None:
            assert law.curve(d) - law.asymptote == pytest.approx(-law.asymptote * 10 ** (-law.exponent * d))


def test_made_up_sweeps_are_what_they_say():
    rng = np.random.default_rng(0)
    for _ in range(5):
        observations, truth = synthesize(BY_NAME["hard floor"], 3, rng)
        x = np.unique(observations.x)
        assert 4 <= len(x) <= 8
        assert 1.5 <= np.log10(x[-1] / x[0]) <= 3
        means = np.array([observations.loss[observations.x == one].mean() for one in x])
        assert means == pytest.approx(truth.loss(x), abs=0.04)


def test_table(rows):
    text = table(rows)
    assert "| hard floor |" in text
    assert "| 5 seeds |" in text
    assert "nan" not in text
