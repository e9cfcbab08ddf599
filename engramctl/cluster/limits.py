"""What a container leaves of this machine: its CPU quota and its memory, by cgroup v2 and v1."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil


def cpu_quota(root: Path = Path("/")) -> int | None:
    """How many whole CPUs the tightest quota allows, at least one; None without a quota."""
    quotas = []
    for folder in _folders(root, ""):
        with suppress(OSError, ValueError):
            allowed, period = (folder / "cpu.max").read_text().split()
            if allowed != "max":
                quotas.append(int(allowed) / int(period))
    for controller in ("cpu", "cpu,cpuacct"):
        for folder in _folders(root, controller):
            with suppress(OSError, ValueError, ZeroDivisionError):
                allowed_us = int((folder / "cpu.cfs_quota_us").read_text())
                if allowed_us > 0:
                    quotas.append(allowed_us / int((folder / "cpu.cfs_period_us").read_text()))
    return max(1, math.floor(min(quotas))) if quotas else None


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that new processes can take: what the machine has available, or less where a container's limit is nearer."""
    free = [int(psutil.virtual_memory().available)]
    for controller, limit, used, cache in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in _folders(root, controller):
            with suppress(OSError, ValueError):  # "max" is no number: no limit
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                free.append(max(0, left + _statistic(folder / "memory.stat", cache)))
    return min(free)


def _statistic(file: Path, name: str) -> int:
    """A line of `memory.stat`: pages of files that are given up as soon as somebody needs the memory."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The folder of this process's group and those above it, up to the mount; v2 has no controller in its path.

    In a container the mount usually is the group itself, while `/proc/self/cgroup` gives the path as the host sees it.
    """
    mount = root / "sys/fs/cgroup" / controller
    yield mount
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == controller or (controller and controller in controllers.split(",")):
                parts = [part for part in group.split("/") if part not in ("", "..")]
                yield from (mount.joinpath(*parts[:i]) for i in range(1, len(parts) + 1))
