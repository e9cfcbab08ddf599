"""A Ray session, private or on a cluster, and how many trials it has room for."""

import logging
import math
import os
import resource
import shutil
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from engram.errors import UserError
from engramctl.cluster.limits import cpu_quota
from engramctl.cluster.private import no_room, private_folder, private_ray, read_authentication
from engramctl.cluster.stopping import RayLostError, Stopping, adopt_orphans, end_processes

_CONNECT_S = 5.0
_RAY_CLIENT_TRIES = 3
"""A cluster starts a server for each ray:// session, and gives up on the first ones when it has just been started itself."""

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_task_oom_retries": "2",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # in this process it goes to stderr
}
_VITAL = ("gcs_server", "raylet")
"""The processes without which a private Ray can't go on."""
LASTING: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
"""Options of an actor that only carries news: it takes no core, and is started again, empty, when it is killed."""
_SILENT: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
_RAY_UNITS = 10_000
"""Parts of a resource that Ray tells apart."""
_MIN_FILE_BYTES = 2**30
"""Ray's object store is a file."""


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
def ray_session(resources: Resources) -> Iterator[Path | None]:
    """Ray for the duration of a block: a private instance on this machine, or the cluster at `resources.address`.

    Yields the folder of the private one, which is gone afterwards. Meanwhile file descriptor 2 is not stderr (`_quiet`).
    SIGINT, SIGTERM and SIGHUP become one KeyboardInterrupt; RayLostError when the private instance dies, UserError when it does so
    while it starts.
    """
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    if resources.address:
        _require_cluster(resources.address)
        with Stopping(lambda: None) as stopping:
            _connect(resources.address, stopping)
            with _quiet(), _running(nullcontext()):
                yield None
        return
    with private_folder() as folder, Stopping(lambda: shutil.rmtree(folder, ignore_errors=True)) as stopping:
        adopt_orphans()
        with private_ray(folder) as arguments:
            try:
                _start(arguments, resources, stopping)
                with _quiet(), _running(stopping.watch(_VITAL, RayLostError)):
                    yield folder
            finally:
                end_processes()


def _connect(address: str, stopping: Stopping) -> None:
    """Connect to the cluster at an address, with the user's own settings of authentication."""
    import ray

    _use_own_token()
    left = _RAY_CLIENT_TRIES if address.startswith("ray://") else 1
    while left:
        left -= 1
        try:
            with _silence(), _own_signals(stopping):
                ray.init(address=address, **_SILENT)
            break
        except Exception as problem:  # Ray raises what it likes here
            if left and isinstance(problem, ConnectionError):
                continue
            token = "" if os.environ.get("RAY_AUTH_MODE") == "token" else "; if it asks for a token, put that into ~/.ray/auth_token"
            raise UserError(f"Ray at {address} can't be reached: {_reason(problem)}{token}") from None


def _start(arguments: dict[str, Any], resources: Resources, stopping: Stopping) -> None:
    """Start a private Ray; UserError when this machine can't."""
    import ray

    _require_loopback()
    cpus = None if resources.workers is None else resources.workers * resources.devices
    # A closed terminal tells Ray's processes too, which inherit this from the main thread; our other threads still hear it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with _silence(), _own_signals(stopping), stopping.watch(_VITAL, _not_started):
            ray.init(num_cpus=cpus, **arguments, **_SILENT)
    except Exception as problem:
        raise _not_started(no_room(arguments) or _reason(problem)) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _not_started(why: str) -> UserError:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    small = limit != resource.RLIM_INFINITY and limit < _MIN_FILE_BYTES
    why = f"its {why} died; the same command tries again" if why in _VITAL else why
    hint = f" (files may have {limit:,} bytes here, `ulimit -f`; Ray needs more)" if small else ""
    return UserError(f"Ray does not start on this machine: {why}{hint}")


@contextmanager
def _own_signals(stopping: Stopping) -> Iterator[None]:
    """Keep SIGTERM ours while Ray starts: it would end this process without a word, or with the page of a crash."""
    from ray import _raylet
    from ray._private import utils

    raylet: Any = _raylet
    take, make = utils.set_sigterm_handler, raylet.CoreWorker

    def make_and_listen(*arguments: Any, **options: Any) -> Any:
        made = make(*arguments, **options)  # which takes SIGTERM for a crash, as if it were SIGSEGV
        stopping.listen()
        return made

    utils.set_sigterm_handler, raylet.CoreWorker = lambda handler: None, make_and_listen
    try:
        yield
    finally:
        utils.set_sigterm_handler, raylet.CoreWorker = take, make


@contextmanager
def _running(watch: AbstractContextManager[None]) -> Iterator[None]:
    import ray
    from ray._private import worker

    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    prints = worker.print_to_stdstream  # of what Ray's processes say, even its logs when one dies, and to stdout
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        with watch:
            yield
    finally:
        ray.shutdown()
        worker.print_to_stdstream = prints


def _use_own_token() -> None:
    """Have Ray use the user's token if there is one and the user has not said otherwise, as Ray itself does for `auto` alone."""
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    read_authentication()
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # it would say that a token is used
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """`sys.stderr` alone reaches stderr, file descriptor 2 nothing: Ray's compiled part complains there, each second, of a full disk."""
    before = sys.stderr
    try:
        own = before.fileno() == 2
    except (OSError, ValueError, AttributeError):  # somebody has put something of theirs in its place
        own = False
    if own:
        sys.stderr = open(os.dup(2), "w", buffering=1, encoding=before.encoding, errors=before.errors)  # noqa: SIM115
    try:
        with _silence():
            yield
    finally:
        if own:
            ours, sys.stderr = sys.stderr, before
            with suppress(OSError):
                ours.close()


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing on stderr: Ray's compiled part writes its log there until it knows better, a line each second for a wrong token."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(problem: Exception) -> str:
    """Why Ray can't be had, in one line."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    if len(lines) > 1 and (lines[0].endswith(":") or any(line.startswith("Traceback") for line in lines)):
        return f"{lines[0].removesuffix(':')}: {lines[-1]}"
    return lines[0]


def _require_cluster(address: str) -> None:
    """UserError unless something listens at the address: Ray itself would keep trying for minutes."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal() or len(port) > len("65535"):
        raise UserError(f"--address {address} is not of the form ray://HOST:PORT, HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError, UnicodeError) as problem:  # UnicodeError: not the name of any host
        raise UserError(f"--address {address}: nothing answers there ({problem})") from None


def _require_loopback() -> None:
    """UserError where a machine can't talk to itself: Ray would wait for itself for minutes."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=_CONNECT_S).close()
    except OSError as problem:
        raise UserError(f"Ray does not start on this machine: 127.0.0.1 can't be reached ({problem.strerror or problem})") from None


def trial_resources(resources: Resources) -> dict[str, float]:
    """CPUs and GPUs for each training process: one core, plus on GPUs a share of one, or a whole one with several devices.

    With W workers on G GPUs a share is one over W / G, rounded up: a process lies on one GPU as a whole, so that of 12 workers on 8 GPUs,
    with two thirds of one each, only 8 would find a place.
    """
    import ray

    if resources.device == "cpu" or (resources.device == "auto" and not ray.cluster_resources().get("GPU")):
        return {"cpu": 1.0}
    gpus = ray.cluster_resources().get("GPU", 0.0)
    if not gpus:
        raise UserError(f"device '{resources.device}': the Ray cluster has no GPU; use --device cpu or auto")
    on_each = math.ceil(resources.workers / gpus) if resources.workers and resources.devices == 1 else 1
    # Ray counts in ten thousandths and would round 1 / 6 up, of which only five fit.
    return {"cpu": 1.0, "gpu": math.floor(_RAY_UNITS / on_each) / _RAY_UNITS}


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
