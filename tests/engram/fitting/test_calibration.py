"""A small part of the benchmark, always the same sweeps; the bars are those of docs/fitting.md less what so few sweeps scatter."""

import numpy as np
import pytest

from engram.fitting.calibration import coverage, table
from engram.fitting.made_up import SHAPES

BY_NAME = {shape.name: shape for shape in SHAPES}


@pytest.fixture(scope="module")
def inside():
    names = ("quadratic 0.37", "two-sided 0.6", "power walls 0.75", "quartic 0.65", "upper wall 0.5")
    return coverage(8, (1, 3, 5), [BY_NAME[name] for name in names], replicates=200)


@pytest.fixture(scope="module")
def outside():
    return coverage(10, (1, 3), [shape for shape in SHAPES if not shape.interior], replicates=200)


def test_intervals_cover_interior_optima(inside):
    assert np.mean([row.rho_covered for row in inside]) >= 0.88
    assert np.mean([row.gain_covered for row in inside]) >= 0.9


def test_intervals_cover_optima_at_an_end(outside):
    assert np.nanmean([row.rho_covered for row in outside]) >= 0.9
    assert np.mean([row.gain_covered for row in outside]) >= 0.9


def test_interior_minima_are_not_claimed_where_there_are_none(outside):
    assert np.mean([row.claimed for row in outside]) <= 0.05


def test_interior_minima_are_claimed_where_there_are_some(inside):
    assert np.mean([row.claimed for row in inside if row.n_seeds == 5]) >= 0.3


def test_intervals_are_of_use(inside):
    assert np.mean([row.rho_width for row in inside if row.n_seeds == 5]) < 0.75
    assert np.mean([row.smooth_width for row in inside if row.n_seeds == 5]) < 0.5
    assert np.mean([row.gain_width for row in inside if row.n_seeds == 5]) < 0.05


def test_shapes_are_what_their_names_say():
    for shape in SHAPES:
        if shape.optimum is not None and any(c.isdigit() for c in shape.name):
            assert shape.optimum == pytest.approx(float(shape.name.split(", noise")[0].split(", 12")[0].split()[-1]), abs=0.002)
        if shape.interior:
            assert shape.curve(np.array([1.0, shape.optimum])) == pytest.approx([1, 0], abs=1e-6)


def test_table(inside, outside):
    text = table([*inside, *outside])
    assert "| quadratic 0.37 |" in text
    assert "| minimum inside, 5 seeds |" in text
    assert "nan" not in text
