"""Which trials a sweep is training right now: written by the process that runs it, read by `engramctl status`."""

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from typing import Any, Self

from engram.errors import UserError
from engram.files import write_atomically
from engram.foreign_files import read_json
from engramctl.results.store import Store

_REFRESH_S = 60.0
_SAME_S = 2.0
_LOST_S = 600.0
"""Age at which the file of a process on another machine is no longer trusted: whether it is alive can't be seen from here."""


@dataclass(frozen=True)
class Process:
    """A process that can be recognised later, even after its pid has been reused.

    UserError when the values, which may come from a file, are not those of a process.
    """

    host: str
    pid: int
    created: float
    """Seconds since 1970, as well as the system knows."""

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or type(self.pid) is not int or not isinstance(self.created, int | float):
            raise UserError(f"host {self.host!r}, pid {self.pid!r}, created {self.created!r} is not a process")

    @classmethod
    def this(cls) -> "Process":
        import psutil

        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    def gone(self) -> bool:
        """Whether it has ended; False for a process on another machine."""
        if self.host != socket.gethostname():
            return False
        import psutil

        try:
            created = float(psutil.Process(self.pid).create_time())
        except psutil.AccessDenied:
            return False
        except (psutil.NoSuchProcess, ValueError, OverflowError):  # there can be no process of such a number
            return True
        # The system counts from its start, whose time it corrects now and then; nobody gets the pid of a process that young.
        return abs(created - self.created) > _SAME_S


@dataclass(frozen=True)
class Running:
    """What is being trained right now."""

    process: Process
    """The process that runs the sweep."""
    trials: frozenset[str]
    """Ids of the trials that it is training."""


class RunningTrials:
    """Keeps `running.json` of a sweep whose lock this process holds.

    Use as a context manager. A file that can't be written raises nothing: training matters more than reporting it.
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
        """Note that a trial runs, or no longer does. Writes on a change, and now and then to show that this process is alive."""
        before = set(self._trials)
        self._trials = [t for t in self._trials if t != trial] + ([trial] if runs else [])
        if set(self._trials) != before or time.monotonic() - self._written > _REFRESH_S:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        content = {"process": asdict(self._process), "trials": sorted(self._trials)}
        with contextlib.suppress(OSError):
            write_atomically(self._path, json.dumps(content).encode())


def _kept(content: Any) -> Running:
    """What a file says; KeyError, TypeError or UserError when it was not written by `RunningTrials`."""
    trials = content["trials"]
    if not isinstance(trials, list) or not all(isinstance(trial, str) for trial in trials):
        raise TypeError("no trials")
    return Running(Process(**content["process"]), frozenset(trials))


def read_running(store: Store) -> Running | None:
    """What is being trained; None when no living process runs the sweep: what a killed one left behind doesn't count."""
    try:
        age = time.time() - store.running.stat().st_mtime
        running = _kept(read_json(store.running))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    lost = running.process.host != socket.gethostname() and age > _LOST_S
    return None if lost or running.process.gone() else running
