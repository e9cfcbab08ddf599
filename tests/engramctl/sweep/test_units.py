import pytest

from engram.errors import UserError
from engramctl.sweep.units import parse_bytes, parse_duration, parse_flops, parse_per_parameter


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500000", 500_000),
        ("64MB", 64_000_000),
        ("64mb", 64_000_000),
        ("2GB", 2 * 10**9),
        ("1.5 GB", 1_500_000_000),
        ("10k", 10_000),
        ("1MiB", 2**20),
    ],
)
def test_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "0", "0.4", "64 parrots", "1e6", "nan", "1,5MB"])
def test_bytes_of_another_form(text):
    with pytest.raises(UserError, match=r"is not a size; .*64MB"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("1h30m", 5400), ("1.5H", 5400), ("2d", 172_800)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "0s", "-2h", "30m1h", "2 hours"])
def test_durations_of_another_form(text):
    with pytest.raises(UserError, match=r"is not a duration; .*1h30m"):
        parse_duration(text)


def test_tokens_for_each_parameter():
    assert [parse_per_parameter(text) for text in ("20tpp", " 12.5TPP ", "1e13", "20m")] == [20.0, 12.5, None, None]


@pytest.mark.parametrize("text", ["tpp", "0tpp", "-1tpp", "nantpp", "1e99tpp", "xtpp"])
def test_tokens_for_each_parameter_of_another_form(text):
    with pytest.raises(UserError, match=r"not a number of tokens for each active parameter, such as 20tpp"):
        parse_per_parameter(text)


def test_flops():
    assert parse_flops("1e14") == 1e14
    assert parse_flops(" 250000 ") == 250_000.0


@pytest.mark.parametrize("text", ["", "0", "-1e13", "inf", "nan", "1e13x", "1e999"])
def test_flops_of_another_form(text):
    with pytest.raises(UserError, match=r"neither FLOPs for each trial, such as 1e13"):
        parse_flops(text)


@pytest.mark.parametrize("text", ["9" * 400 + "TB", "9" * 5000, "2000000000GB"])
def test_sizes_of_no_machine(text):
    with pytest.raises(UserError, match="more than any machine holds") as mistake:
        parse_bytes(text)
    assert len(str(mistake.value)) < 200


@pytest.mark.parametrize("text", ["9" * 400 + "s", "4000d"])
def test_durations_of_no_sweep(text):
    with pytest.raises(UserError, match="longer than ten years"):
        parse_duration(text)
