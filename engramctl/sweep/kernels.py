"""Compiling the kernels beside what else a sweep does before it trains."""

import threading
from collections.abc import Callable
from concurrent.futures import Future


def compiling(device: str, note: Callable[[str], None]) -> "Future[None] | None":
    """Starts compiling the kernels if trials run on the CPU of this machine.

    The result is there when they are compiled, or this machine can't do that, which is said; it is a UserError when the disk is full.
    """
    from engram.training.machine import resolve_device

    if resolve_device(device).type != "cpu":
        return None
    ready: Future[None] = Future()

    def prepare() -> None:
        from engram import kernels

        try:
            if distrusted := kernels.note():
                note(distrusted)
            if reason := kernels.prepare():
                note(f"training without compiled kernels, more slowly: {reason}")
            ready.set_result(None)
        except Exception as problem:
            ready.set_exception(problem)

    threading.Thread(target=prepare, daemon=True).start()
    return ready
