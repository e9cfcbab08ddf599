"""The processes of one run of `engramctl`: started by us, found again by a mark that they all inherit, hit by signals.

The mark is an environment variable, so that processes whose parents are gone are found as well, and no other Ray's ever are.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

MARK = "ENGRAMCTL_KILLS_MARK"
TARGETS = ("driver", "worker", "raylet", "gcs_server", "group")
"""`group`: the driver and those of its process group, as a terminal, `timeout` and systemd do it."""


def marked(mark: str) -> list[psutil.Process]:
    """All living processes of the run; zombies hold nothing and wait only for their parent."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def named(process: psutil.Process) -> str:
    """What a process is: its command in a few words."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:80] or process.name()
    return str(process.pid)


def find(target: str, driver: int, mark: str, choose: Callable[[list[psutil.Process]], psutil.Process]) -> psutil.Process | None:
    """The process to hit, or None while there is none; of several workers `choose` takes one."""
    if target in ("driver", "group"):
        return psutil.Process(driver)
    fits = _trains if target == "worker" else lambda process: process.name() == target
    found = []
    for process in sorted(marked(mark), key=lambda process: process.pid):
        with suppress(psutil.Error):
            if fits(process):
                found.append(process)
    return choose(found) if found else None


def _trains(process: psutil.Process) -> bool:
    """Whether it is a worker, idle ones included."""
    return any(word.startswith("ray::") for word in process.cmdline())


def hit(victim: psutil.Process, target: str, number: int, stop_s: float) -> None:
    """Send a signal; SIGSTOP is followed by SIGCONT after `stop_s` seconds."""

    def send(signal_number: int) -> None:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if target == "group":
                os.killpg(victim.pid, signal_number)
            else:
                victim.send_signal(signal_number)  # psutil makes sure that the pid is still this process's

    send(number)
    if number == signal.SIGSTOP:
        time.sleep(stop_s)
        send(signal.SIGCONT)


def left_after(mark: str, seconds: float) -> tuple[list[psutil.Process], float]:
    """Processes of the run that are still there after so long, and the seconds until there were none."""
    began = time.monotonic()
    while (left := marked(mark)) and time.monotonic() - began < seconds:
        time.sleep(0.2)
    return left, time.monotonic() - began


def end(left: list[psutil.Process]) -> None:
    """End what should not be there any more."""
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=10)
