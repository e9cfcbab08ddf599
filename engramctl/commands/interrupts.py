"""Ctrl-C, `kill` and a closed terminal: every command ends in order, with one line, and at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from engramctl.present import console

EXIT_CODE = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOKS, _LOOK_S = 20, 0.1
"""So often we look whether Python has noticed a signal; compiled code can keep it from that: training a tokenizer does so for minutes.

Looking is waiting for the processor as well, so on a busy machine this takes longer.
"""
_STOP_S = 30.0
"""After this long an orderly end is given up."""
_LINE = "stopped; the same command does it again"


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first of the signals into a KeyboardInterrupt during a block, in the main thread; further ones change nothing.

    If nothing comes of that in time, the process just ends. What somebody else handles inside the block is theirs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noticed, over = threading.Event(), threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if not noticed.is_set():
            noticed.set()
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # nohup wants it so
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        # The signal arrives here even while the main thread is in compiled code, where no handler of Python's runs.
        while numbers := os.read(reader, 64):
            if any(signal.getsignal(number) is stop for number in numbers if number in before):
                if any(noticed.wait(_LOOK_S) for _ in range(_LOOKS)) and over.wait(_STOP_S):
                    return
                _end()

    threading.Thread(target=watch, name="signal-watch", daemon=True).start()
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(woken)
        os.close(writer)  # ends the thread
        for number, handler in before.items():
            # After a signal the program is about to end, and a further one must not break its last steps; who heard it inside the block
            # has made sure of that already.
            over_soon = noticed.is_set() or signal.getsignal(number) is signal.SIG_IGN
            signal.signal(number, signal.SIG_IGN if over_soon else handler)


def say_stopped() -> None:
    """The line of a command that has nothing better to say."""
    console.note(_LINE)


def _end() -> None:
    with suppress(OSError):
        cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
        os.write(2, f"{cursor}{_LINE}\n".encode())
    os._exit(EXIT_CODE)
