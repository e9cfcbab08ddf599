"""For how much of its time a GPU works."""

import shutil
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def busy_share(work: Callable[[], object], device: torch.device) -> float | None:
    """Share of the time between the first kernel and the last in which one ran; None where no kernels are seen."""
    if device.type != "cuda":
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize(device)
    spans = sorted((e.time_range.start, e.time_range.end) for e in seen.events() or [] if e.device_type == DeviceType.CUDA)
    return covered(spans)


def covered(spans: list[tuple[float, float]]) -> float | None:
    """Share of the time from the first to the last that spans of time cover, given by rising start; None without any."""
    if not spans or max(end for _, end in spans) <= spans[0][0]:
        return None
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / (reached - spans[0][0])


@contextmanager
def utilisation(every_ms: int = 100) -> Iterator[Callable[[], float | None]]:
    """Sample nvidia-smi meanwhile; yields a function for the mean so far, the share of the time in which a kernel of any process ran.

    It returns None where there is no nvidia-smi.
    """
    if shutil.which("nvidia-smi") is None:
        yield lambda: None
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0", "-lms", str(every_ms)]
    sampler = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    samples: list[float] = []

    def read() -> None:
        assert sampler.stdout is not None
        for line in sampler.stdout:
            if line.strip().isdecimal():
                samples.append(int(line) / 100)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lambda: statistics.fmean(samples) if samples else None
    finally:
        sampler.terminate()
        sampler.wait()
        reader.join()
