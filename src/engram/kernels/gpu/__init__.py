"""Fast paths for training on a GPU, written in Triton. Everything works without them, only more slowly.

`engram.kernels.ops` and `memory_ops` use them for tensors on a GPU where the package `triton` is there, which PyTorch's own builds for CUDA
bring along. They compute in fp32 and differ from the plain operations only by rounding; none of them adds in an order that changes from run
to run, and none makes the host wait, so that a whole step can be captured as one graph.

Kernels are compiled at their first use, once for each width, and kept in Triton's own cache. What differs between the trials of a sweep
(number of experts, rows of tables) is an ordinary argument, so that all trials share them.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from engram import kernels

_DTYPES = (torch.float32, torch.bfloat16)
_interpreting = False


@contextmanager
def interpreting() -> Iterator[None]:
    """Use the kernels for tensors on the CPU too, slowly: for tests, in a process that imported Triton with `TRITON_INTERPRET=1`."""
    global _interpreting
    before, _interpreting = _interpreting, True
    try:
        yield
    finally:
        _interpreting = before


def missing() -> str | None:
    """What the kernels lack here, in one line; None if nothing. The package is imported only when a kernel is used."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    compilers = (os.environ.get("CC"), "gcc", "clang", "cc")
    if not any(name and shutil.which(name) for name in compilers):
        return "there is no C compiler, which Triton needs for their launch (gcc or clang, or $CC)"
    return None


def version() -> str:
    """Version of Triton and a fingerprint of the kernels' source, or "none" where they can't be used."""
    if not _complete:
        return "none"
    source = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
    return f"triton {importlib.metadata.version('triton')} {source.hexdigest()[:12]}"


def usable(x: Tensor) -> bool:
    """Whether there are kernels for `x`: fp32 or bf16, on a GPU."""
    return (x.is_cuda or _interpreting) and x.dtype in _DTYPES and kernels.enabled() and _complete


def product_dtype(x: Tensor) -> torch.dtype:
    """Dtype of matrix products on the device of `x`, and of what is written only to be multiplied: that of autocast, or fp32."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


_complete = missing() is None
