import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from engramctl.present.format import (
    bounds,
    counted,
    duration,
    format_flops,
    format_rho,
    human,
    is_missing,
    last_line,
    number,
    percent,
    percent_bounds,
    plain,
    series_name,
    short_trial_name,
    trial_name,
)

NAN = float("nan")


def test_a_missing_number_is_a_dash():
    assert [is_missing(value) for value in (None, NAN, np.float64("nan"), 0, 0.0, math.inf)] == [True, True, True, False, False, False]
    assert [number(value) for value in (1, 0.12345, -2.0, None, NAN)] == ["1.000", "0.123", "-2.000", "-", "-"]
    assert (number(0.5, "+.1f"), number(None, missing="none")) == ("+0.5", "none")
    assert [bounds(0.1, 0.25), bounds(0.1, 0.25, "+.1f"), bounds(NAN, NAN), bounds(None, None)] == [
        "0.100 to 0.250",
        "+0.1 to +0.2",
        "-",
        "-",
    ]


def test_percentages_have_no_sign():
    assert [percent(0.1234), percent(0.1234, ".0f"), percent(None), percent(NAN)] == ["12.3", "12", "-", "-"]
    assert [percent_bounds(0.1, 0.25), percent_bounds(None, 0.25)] == ["10.0 to 25.0", "-"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.00123, "0.00123"), (7, "7"), (999, "999"), (999.6, "1k"), (1234, "1.23k"), (1_234_567, "1.23M"), (-5e9, "-5G"),
        (2.5e12, "2.5T"), (1e15, "1e+15"), (1.234e18, "1.23e+18"),
    ],
)  # fmt: skip
def test_human_numbers_have_suffixes(value, text):
    assert human(value) == text


def test_human_numbers_have_as_many_digits_as_wanted():
    assert human(985_912, digits=4) == "985.9k"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (10, "10s"), (59.4, "59s"), (75.2, "1m15s"), (3599, "59m59s"), (3661, "1h01m"), (200_000, "2d07h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_flops_and_rho():
    assert [format_flops(f) for f in (8.2e12, 1e13, 1.234e12, 5, 0.02)] == ["8.2e12", "1e13", "1.23e12", "5e0", "2e-2"]
    assert [format_rho(r) for r in (0.6, 0.1 + 0.2, 0.775, 1, 0, 0.12345)] == ["0.60", "0.30", "0.775", "1.00", "0.00", "0.1235"]


def test_names_of_trials_and_series():
    trial = SimpleNamespace(size="1m", variant="", rho=0.4, seed=0)
    assert (trial_name(trial), short_trial_name(trial)) == ("1m, rho = 0.40, seed 0", "1m ρ=0.4 seed=0")
    trial.variant = "no gate"
    assert (trial_name(trial), short_trial_name(trial)) == ("1m, no gate, rho = 0.40, seed 0", "1m no gate ρ=0.4 seed=0")
    assert [series_name("1m", 6e12), series_name("1m", 6e12, "no gate")] == ["1m, 6e12 FLOPs", "1m, 6e12 FLOPs, no gate"]


def test_nouns_are_counted():
    assert [counted(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]


def test_the_last_line_says_what_went_wrong():
    assert last_line("Traceback\n  x\nMemoryError: no room\n") == "MemoryError: no room"
    assert [last_line(text) for text in ("one", "", " \n", None)] == ["one", "", "", "None"]


def test_plain_values_are_strict_json():
    values = [
        NAN,
        math.inf,
        None,
        pd.NA,
        np.float64("nan"),
        np.float64(0.5),
        np.int64(3),
        np.bool_(True),
        "text",
        (1, NAN),
        np.array([1.5, NAN]),
    ]
    assert plain(values) == [None, None, None, None, None, 0.5, 3, True, "text", [1, None], [1.5, None]]
    assert json.loads(json.dumps(plain(values), allow_nan=False)) == plain(values)
    assert type(plain(np.int64(3))) is int
