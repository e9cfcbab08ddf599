"""The machine that this process runs on."""

import os
import platform
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from engram import kernels
from engram.benchmarks.results import Machine
from engram.config.training import TrainConfig
from engram.kernels import gpu
from engram.training.machine import resolve_precision


def this_machine(train: TrainConfig, device: torch.device) -> Machine:
    """This machine as it would train `train` on `device` in this process."""
    return Machine(
        cpu=_cpu_model(),
        cores=psutil.cpu_count(logical=False) or 1,
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=str(device),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        pytorch=torch.__version__,
        kernels=gpu.version() if device.type == "cuda" else kernels.version(),
        precision=resolve_precision(train.precision, device),
    )


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def free_bytes(device: torch.device) -> int:
    """Bytes that are free for tensors on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)
