"""Benchmarks run on a GPU to their end; what they measure, `make gpu` measures for longer."""

import json

import pytest

from .conftest import DEVICE, run


@pytest.mark.parametrize("bench", ["train", "memory", "pack"])
def test_bench(bench, text_folder, cache):
    text = ("--corpus", f"files:{text_folder}/*.txt", "--vocab-size", 400, "--cache", cache)
    numbers = ("--workers", "1,2") if bench == "pack" else ()
    measured = run("bench", bench, "--device", DEVICE, "--rounds", 2, "--seconds", 1, *text, *numbers, "--json").stdout
    assert json.loads(measured)["machine"]["device"].startswith(DEVICE)
