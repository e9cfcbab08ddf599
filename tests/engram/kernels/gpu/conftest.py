"""Kernels for a GPU, tested on one where there is one, and in Triton's interpreter elsewhere (`tests/conftest.py` asks for it)."""

from collections.abc import Iterator

import numpy as np
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
        multiply_bf16()
        with gpu.interpreting():
            yield torch.device("cpu")


def multiply_bf16() -> None:
    """Teach Triton's interpreter to multiply bf16, which it keeps as uint16 and would multiply as integers."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def numbers(handle: TensorHandle) -> np.ndarray:
        if handle.data.dtype != np.uint16:
            return handle.data
        return (handle.data.astype(np.uint32) << 16).view(np.float32)

    def create_dot(_: InterpreterBuilder, a: TensorHandle, b: TensorHandle, d: TensorHandle, *rest: object) -> TensorHandle:
        return TensorHandle(np.matmul(numbers(a), numbers(b), dtype=d.data.dtype) + d.data, d.dtype.scalar)

    InterpreterBuilder.create_dot = create_dot
