"""Benchmarks run on a GPU to their end; what they measure is printed by `make gpu`."""

import json

import pytest

from .conftest import DEVICE, run


@pytest.mark.parametrize("bench", ["train", "memory"])
def test_bench(bench, capsys):
    measured = run("bench", bench, "--device", DEVICE, "--rounds", 2, "--seconds", 2, "--json").stdout
    with capsys.disabled():
        print(f"\nbench {bench}: {measured.strip()}")
    assert json.loads(measured)
