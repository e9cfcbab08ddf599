"""What is known of the kernels for a GPU without running any."""

import importlib.util

import pytest
import torch

from engram import kernels
from engram.kernels import gpu


@pytest.fixture
def found(monkeypatch):
    """Sets what is found on the machine: the package, and programs."""

    def set_up(package: bool, *programs: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if package else None)
        monkeypatch.setattr(gpu.shutil, "which", lambda name: name if name in programs else None)
        monkeypatch.delenv("CC", raising=False)

    return set_up


def test_what_is_missing_is_said(found, monkeypatch):
    found(True, "clang")
    assert gpu.missing() is None
    found(True)
    assert "C compiler" in gpu.missing()
    monkeypatch.setenv("CC", "icx")
    assert "C compiler" in gpu.missing()
    found(False, "gcc")
    assert "triton" in gpu.missing()


def test_a_cpu_does_not_use_them():
    assert not gpu.usable(torch.zeros(1))


def test_products_have_the_dtype_of_autocast():
    x = torch.zeros(1)
    assert gpu.product_dtype(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert gpu.product_dtype(x) == torch.bfloat16


def test_plain_switches_them_off(monkeypatch):
    monkeypatch.setattr(gpu, "_complete", True)
    with gpu.interpreting():
        assert gpu.usable(torch.zeros(1))
        assert not gpu.usable(torch.zeros(1, dtype=torch.float64))
        with kernels.plain():
            assert not gpu.usable(torch.zeros(1))
