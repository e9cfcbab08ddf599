"""What the machine offers, and the settings of a training process."""

import ctypes
import gc
import platform
import resource
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch

from engram import kernels
from engram.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
_GARBAGE_THRESHOLD = 50_000
"""New objects between two garbage collections (CPython's default: 700)."""


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` -> a device that exists here; UserError otherwise."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name.split(":")[0] == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device '{name}' is not there: this PyTorch sees no CUDA GPU; use cpu or auto")
        with suppress(RuntimeError):
            device = torch.device(name)
            if (device.index or 0) < torch.cuda.device_count():
                return device
    raise UserError(f"device '{name}' is unknown; use auto, cpu, cuda or cuda:N")


def resolve_precision(precision: Literal["auto", "bf16", "fp32"], device: torch.device) -> Literal["bf16", "fp32"]:
    """`auto` becomes bf16 where the hardware multiplies it (AMX or AVX-512 BF16 on a CPU), fp32 elsewhere."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"


def settle_process(threads: int, device: torch.device) -> None:
    """Set a process up for training on `device`: threads, a heap that keeps its pages, rare garbage collections, and the CPU's kernels.

    These are compiled and loaded only where the model is on the CPU: compiling takes longer than anything else at the start of a process.

    By default glibc hands large blocks back to the system at every free, and each training step would fault them in again. A step makes
    thousands of objects but hardly any cycles, while every collection walks over all that the imports have left.
    """
    torch.set_num_threads(threads)
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    if threads == 1 and device.type == "cpu":
        kernels.load()
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back(device: torch.device) -> None:
    """Free what nothing refers to any more, and hand the GPU memory that PyTorch keeps for later back to other processes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reset_peak_rss() -> None:
    """Reset the peak of resident memory (Linux; elsewhere the peak stays that of the whole process)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_bytes() -> int:
    """Peak resident memory since `reset_peak_rss`, in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
