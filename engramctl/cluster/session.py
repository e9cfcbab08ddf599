"""A Ray session, private or on a cluster, and how many trials it has room for."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from engram.errors import UserError
from engramctl.cluster.limits import cpu_quota

_CONNECT_S = 5.0

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True)
class Resources:
    """What the trials of a sweep may use."""

    device: str
    workers: int | None
    """Trials at a time; None: as many as the cluster has room for."""
    address: str | None
    """A Ray cluster; None: this machine."""
    devices: int = 1
    """Processes that train one trial together, a core or a GPU each."""


def local_workers(device: str, devices: int = 1) -> int:
    """How many trials this machine can run at a time, each on `devices` devices; UserError when there are too few for even one."""
    available = _local_devices(device)
    if devices > max(1, available):
        kind = "cores" if device == "cpu" else "GPUs"
        raise UserError(f"--devices-per-trial {devices}: this machine has {available} {kind} for trials")
    return max(1, available // devices)


def _local_devices(device: str) -> int:
    """The number of GPUs if trials run on them, else of cores that this process may use: a container often has a quota."""
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
    physical = psutil.cpu_count(logical=False) or 1
    return max(1, min(physical, len(os.sched_getaffinity(0)), cpu_quota() or physical))


@contextmanager
def ray_session(resources: Resources) -> Iterator[None]:
    """Ray for the duration of a block: a private instance on this machine, or the cluster at `resources.address`."""
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    import ray

    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if resources.address:
        _require_cluster(resources.address)
    try:
        if resources.address:
            ray.init(address=resources.address, **common)
        else:
            cpus = None if resources.workers is None else resources.workers * resources.devices
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **common)
    except (ConnectionError, ValueError, RuntimeError, OSError) as problem:
        where = resources.address or "this machine"
        raise UserError(f"Ray at {where} can't be reached: {str(problem).splitlines()[0]}") from None
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _require_cluster(address: str) -> None:
    """UserError unless something listens at the address: Ray itself would keep trying for minutes."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise UserError(f"--address {address} is not of the form ray://HOST:PORT, HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as problem:
        raise UserError(f"--address {address}: nothing answers there ({problem})") from None


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def trial_resources(resources: Resources) -> dict[str, float]:
    """CPUs and GPUs for each training process: one core, plus on GPUs an equal share of them, or a whole one with several devices."""
    import ray

    if resources.device == "cpu" or (resources.device == "auto" and not ray.cluster_resources().get("GPU")):
        return {"cpu": 1.0}
    gpus = ray.cluster_resources().get("GPU", 0.0)
    if not gpus:
        raise UserError(f"device '{resources.device}': the Ray cluster has no GPU; use --device cpu or auto")
    share = min(1.0, gpus / resources.workers) if resources.workers and resources.devices == 1 else 1.0
    return {"cpu": 1.0, "gpu": share}


def cluster_workers(resources: Resources) -> int:
    """How many trials the cluster can run at a time; UserError when several devices per trial are wanted and there are too few."""
    import ray

    cluster, each = ray.cluster_resources(), trial_resources(resources)
    wanted = {"CPU": each["cpu"] * resources.devices, "GPU": each.get("gpu", 0.0) * resources.devices}
    room = min(int(cluster.get(name, 0.0) / amount) for name, amount in wanted.items() if amount)
    if not room and resources.devices > 1:
        has = f"{cluster.get('CPU', 0.0):.0f} CPUs" + (f" and {cluster.get('GPU', 0.0):.0f} GPUs" if "gpu" in each else "")
        raise UserError(f"--devices-per-trial {resources.devices}: the Ray cluster has {has}")
    return max(1, room)
