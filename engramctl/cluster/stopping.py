"""How a session ends early: a signal asks for it, or Ray itself dies. Either way it ends in order, and soon."""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

import psutil

from engram.errors import UserError
from engramctl.cluster.last_word import LastWord

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_S = 30.0
"""After this long an orderly stop is given up and the process just ends."""
_LOST_S = 8.0
"""The same when Ray has died: it would end this process itself after 14 s, with many lines."""
_LOOK_S = 0.5
_SERVE_S = 60.0
"""After this long a gcs_server that still serves nobody never will."""
_PR_SET_CHILD_SUBREAPER = 36
_STOPPED = "stopped; what is finished is kept, and the same command continues"


class RayLostError(UserError):
    """A process without which Ray can't go on has died."""

    exit_code = 1

    def __init__(self, name: str) -> None:
        super().__init__(f"Ray's {name} died; what is finished is kept, and the same command continues")


class _Lost(BaseException):
    """Raised in the main thread when Ray is lost; not an Exception, so that nothing on the way out takes it for a trial's."""


class Stopping:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a KeyboardInterrupt, and the death of Ray into a UserError.

    Use as a context manager around a session, in the main thread. Further signals change nothing: the stop is under way.

    Args:
        clean: what has to be done if the orderly stop is given up.
    """

    def __init__(self, clean: Callable[[], None]) -> None:
        self._clean = clean
        self._began: float | None = None
        self._lost: UserError | None = None
        self._over = threading.Event()
        self._previous: dict[int, Any] = {}
        self._last_word = LastWord()

    def __enter__(self) -> Self:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        if self._previous[signal.SIGHUP] is signal.SIG_IGN:  # nohup wants it so
            del self._previous[signal.SIGHUP]
        self._stderr = os.dup(2)  # Ray is started with stderr closed
        self._last_word.start()
        self.listen()
        return self

    def listen(self) -> None:
        """Take the signals; again once Ray has taken them."""
        for number in self._previous:
            signal.signal(number, self._stop)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for number, before in self._previous.items():
            # After a signal the program is about to end, and a further one must not break its last steps.
            signal.signal(number, signal.SIG_IGN if self._began is not None else before)
        os.close(self._stderr)
        self._last_word.close()
        if self._lost and isinstance(error, Exception | _Lost):
            raise self._lost from None

    @contextmanager
    def watch(self, names: Collection[str], error: Callable[[str], UserError]) -> Iterator[None]:
        """Watch over children of this process with these names during a block; they may start in it.

        Args:
            names: of the children without which the block can't go on.
            error: makes what is raised when one of them, given by its name, is lost.
        """
        ending = threading.Event()
        threading.Thread(target=self._watch, args=(set(names), error, ending), name="ray-watch", daemon=True).start()
        try:
            yield
        finally:
            ending.set()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._began is not None:
            return
        self._began = time.monotonic()
        if self._lost:
            raise _Lost
        threading.Thread(target=self._give_up, args=(_STOP_S, 128 + number), name="stop-limit", daemon=True).start()
        raise KeyboardInterrupt

    def _watch(self, names: set[str], error: Callable[[str], UserError], ending: threading.Event) -> None:
        children: dict[str, _Child] = {}
        while not ending.wait(_LOOK_S):
            if missing := names - children.keys():
                children |= {name: _Child(child) for child in psutil.Process().children() if (name := _name(child)) in missing}
            lost = [name for name, child in children.items() if child.lost()]
            if lost and not ending.is_set() and self._began is None:
                self._lost = error(lost[0])
                end_processes()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                self._give_up(_LOST_S, self._lost.exit_code)
                return

    def _give_up(self, seconds: float, code: int) -> None:
        """End the process if the session is not over by then."""
        if not self._over.wait(seconds):
            with suppress(Exception):
                line = f"error: {self._lost}" if self._lost else _STOPPED
                os.write(self._stderr, f"{line}\n".encode())
                self._last_word.close()
                end_processes()
                self._clean()
            os._exit(code)


class _Child:
    """A process that has to stay alive and, once it serves others, has to go on with that."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._must_serve = _name(process) == "gcs_server"
        self._served = False
        self._seen = time.monotonic()

    def lost(self) -> bool:
        """Whether it is dead, or has closed its doors: Ray's gcs_server does that on SIGTERM, and then stays for ever."""
        try:
            if self._process.status() == psutil.STATUS_ZOMBIE:
                return True
            serves = any(one.status == psutil.CONN_LISTEN for one in self._process.net_connections())
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False
        before, self._served = self._served, self._served or serves
        if not before and self._must_serve:  # told to end before it had begun, it stays as well, and Ray waits for it without end
            return not serves and time.monotonic() - self._seen > _SERVE_S
        return before and not serves


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())
    return ""


def adopt_orphans() -> None:
    """Become the parent of processes whose parent dies (Linux), so that `end_processes` finds what a dead raylet leaves."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_processes() -> None:
    """End all processes of Ray below this one."""
    found = [child for child in psutil.Process().children(recursive=True) if _is_ray(child)]
    for child in found:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(found, timeout=3)


def _is_ray(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return any(word.startswith("ray::") or "/ray/" in word for word in command)
