"""Fast paths for training on one CPU core, compiled from `cpu/*.cpp`. Everything works without them, only more slowly.

`load` compiles them, once per machine, and switches them on in this process; from then on `engram.kernels.ops` uses them for fp32 tensors
on the CPU in a process with one thread. They differ from the plain operations only by rounding.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from engram.errors import UserError
from engram.files import is_full, refusal
from engram.kernels.build import Library, compiled, compiler, distrusted, fingerprint

_library: Library | None = None
_enabled = True


def load() -> str | None:
    """Switch the kernels on in this process, compiling them if need be; returns None, or why that can't be done.

    Raises UserError like `prepare`.
    """
    global _library
    if _library is None:
        if reason := prepare():
            return reason
        try:
            _library = Library(compiled())
        except OSError as problem:
            return f"the compiled file can't be loaded: {problem}"
    return None


def prepare() -> str | None:
    """Compile the kernels if need be, without switching them on; returns None, or why this machine can't do that.

    Raises UserError when the disk of the cache is full: losses would differ by rounding from those with kernels, and of one sweep some
    trials would have them and others not.
    """
    if not _cpu_can():
        return "this CPU has no AVX-512, which their products need"
    try:
        compiled()
    except (RuntimeError, OSError, subprocess.SubprocessError) as problem:
        if is_full(problem) and isinstance(problem, OSError):
            raise UserError(f"kernels can't be compiled into the cache (ENGRAMCTL_CACHE): {refusal(problem)}") from None
        return str(problem)
    return None


def note() -> str | None:
    """What to tell about the cache: that its compiled file is not used, and why."""
    return distrusted() if _cpu_can() else None


def _cpu_can() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_f")) and torch.backends.mkldnn.is_available()


def available() -> bool:
    """Whether trials on this CPU can use the kernels; compiles nothing."""
    return _cpu_can() and compiler() is not None


@contextmanager
def plain() -> Iterator[None]:
    """Switch the kernels off for the length of a block, for comparisons."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def enabled() -> bool:
    """False inside `plain`."""
    return _enabled


def version() -> str:
    """Fingerprint of the kernels that this process trains with, or "none"."""
    return fingerprint() if _library is not None and _enabled and torch.get_num_threads() == 1 else "none"


def library(x: Tensor) -> Library | None:
    """The kernels, if they can work on `x`; otherwise None."""
    usable = _enabled and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and torch.get_num_threads() == 1
    return _library if usable else None


def bf16_products() -> bool:
    """Whether products run in bf16: under autocast, on a CPU that multiplies it."""
    if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return False
    return cpu_multiplies_bf16()


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bf16; if not, PyTorch refuses the products that the kernels ask for."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
