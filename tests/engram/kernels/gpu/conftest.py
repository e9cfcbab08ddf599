"""Kernels for a GPU, tested on one where there is one, and in Triton's interpreter elsewhere (`tests/conftest.py` asks for it)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from engram.kernels import gpu


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Where the kernels run; inside a test that asks for it they are in use."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        yield torch.device("cuda")
    else:
        _multiply_bf16(monkeypatch)
        with gpu.interpreting():
            yield torch.device("cpu")


def _multiply_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bf16 as 16-bit integers, and would multiply those."""
    from triton.language import bfloat16
    from triton.runtime.interpreter import InterpreterBuilder

    def wide(x: Any) -> np.ndarray:
        return (x.data.astype(np.uint32) << 16).view(np.float32) if x.dtype.scalar == bfloat16 else x.data

    def create_dot(self: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
        return type(d)(np.matmul(wide(a), wide(b), dtype=d.data.dtype) + d.data, d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a GPU had a single processor: tiles of several rows, and programs with several tiles, for inputs small enough for a test."""
    pytest.importorskip("triton")
    from engram.kernels.gpu import sizing

    monkeypatch.setattr(sizing, "PROGRAMS", 4)
