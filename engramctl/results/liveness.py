"""Which trials a sweep trains at this moment: written by the process that runs it, read by `engramctl status`."""

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from typing import Self

from engramctl.results.parquet import write_atomically
from engramctl.results.store import Store

_REFRESH_S = 60.0
_LOST_S = 600.0
"""Age at which the word of a process on another machine is no longer believed: whether it lives can't be seen from here."""


@dataclass(frozen=True)
class Process:
    """A process that can be recognised later."""

    host: str
    pid: int
    created: float

    @classmethod
    def this(cls) -> "Process":
        import psutil

        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    def gone(self) -> bool:
        """Whether it has ended; False when it lives on another machine."""
        if self.host != socket.gethostname():
            return False
        import psutil

        try:
            return bool(psutil.Process(self.pid).create_time() != self.created)
        except psutil.NoSuchProcess:
            return True


@dataclass(frozen=True)
class Running:
    """What is being trained."""

    process: Process
    """The process that runs the sweep."""
    trials: frozenset[str]
    """Ids of the trials that it trains now."""


class RunningTrials:
    """Keeps `running.json` of a sweep that this process holds the lock of.

    Use as a context manager. Nothing is raised when the file can't be written: training matters more than the news of it.
    """

    def __init__(self, store: Store) -> None:
        self._path = store.running
        self._process = Process.this()
        self._trials: list[str] = []
        self._written = 0.0

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def note(self, trial: str, runs: bool) -> None:
        """Take note of a trial that runs, or does no longer; writes when that is news, and now and then to show that this process lives."""
        before = set(self._trials)
        self._trials = [t for t in self._trials if t != trial] + ([trial] if runs else [])
        if set(self._trials) != before or time.monotonic() - self._written > _REFRESH_S:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        content = {"process": asdict(self._process), "trials": sorted(self._trials)}
        with contextlib.suppress(OSError):
            write_atomically(self._path, json.dumps(content).encode())


def read_running(store: Store) -> Running | None:
    """What is being trained, or None when no living process runs the sweep: what a killed one left is not believed."""
    try:
        age = time.time() - store.running.stat().st_mtime
        content = json.loads(store.running.read_bytes())
        running = Running(Process(**content["process"]), frozenset(content["trials"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    lost = running.process.host != socket.gethostname() and age > _LOST_S
    return None if lost or running.process.gone() else running
