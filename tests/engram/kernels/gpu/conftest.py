"""Kernels for a GPU, tested on one where there is one, and in Triton's interpreter elsewhere (`tests/conftest.py` asks for it)."""

from collections.abc import Iterator

import pytest
import torch

from engram.kernels import gpu


@pytest.fixture
def device() -> Iterator[torch.device]:
    """Where the kernels run; inside a test that asks for it they are in use."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        yield torch.device("cuda")
    else:
        with gpu.interpreting():
            yield torch.device("cpu")


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a GPU had a single processor: tiles of several rows, and programs with several tiles, for inputs small enough for a test."""
    pytest.importorskip("triton")
    from engram.kernels.gpu import sizing

    monkeypatch.setattr(sizing, "PROGRAMS", 4)
