"""Sweeps on a GPU: the CPU's losses up to rounding, its own to the bit, however the trials were run."""

import pytest

from .conftest import DEVICE, run, trials


def losses(results):
    return trials(results)["val_loss"]


def test_trials_side_by_side_on_one_gpu(finished):
    rows = trials(finished)
    assert list(rows["status"]) == ["finished"] * 3
    assert all(device.startswith(DEVICE) for device in rows["device"])


def test_losses_are_those_of_a_cpu(sweep):
    """In fp32 and with AdamW: Muon's products are bf16 on a GPU, and part its losses from a CPU's by 0.003 after 24 steps."""
    exact = ("--set", "train.precision=fp32", "--set", "train.optimizer.kind=adamw", "--workers", 3 if DEVICE == "cuda" else 1)
    on_cpu, here = losses(sweep(*exact, device="cpu")), losses(sweep(*exact))
    assert list(here) == pytest.approx(list(on_cpu), abs=2e-4)


def test_one_after_the_other_equals_side_by_side(finished, sweep):
    assert list(losses(sweep("--workers", 1))) == list(losses(finished))


@pytest.mark.parametrize("place", ["host", "disk"])
def test_tables_outside_the_model(finished, sweep, place):
    rows = trials(sweep("--workers", 3, "--tables", place))
    assert list(rows["tables"])[:2] == [place] * 2
    assert list(rows["val_loss"]) == pytest.approx(list(losses(finished)), abs=2e-2)


def test_more_devices_than_there_are_is_one_line():
    refused = run("sweep", "smoke", "--device", DEVICE, "--devices-per-trial", 99, code=2)
    assert refused.stderr.count("\n") == 1
    assert "--devices-per-trial 99" in refused.stderr
