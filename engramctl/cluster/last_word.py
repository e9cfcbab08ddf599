"""A line on stderr when this process is ended from below or from outside, without a chance to say one itself.

Ray's compiled part ends the process of a session whose raylet closes the connection at the wrong moment, and the kernel ends one that is
out of memory. A shell waits meanwhile on a pipe: what it reads, or that the pipe just closes, tells it how the session ended.
"""

import subprocess
from contextlib import suppress
from typing import Self

_LINE = "error: this process was ended by Ray or from outside; what is finished is kept, and the same command continues"
_WAIT = f"""trap '' INT TERM HUP; read word || echo "{_LINE}" >&2"""


class LastWord:
    """From its start on the line is said unless `close` comes before the end of this process."""

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start waiting; where there is no shell, nobody waits."""
        with suppress(OSError):
            self._shell = subprocess.Popen(["/bin/sh", "-c", _WAIT], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        return self

    def close(self) -> None:
        """The session ends in order, or somebody else says the line. May be called twice."""
        shell, self._shell = self._shell, None
        if shell is not None:
            with suppress(OSError):
                shell.communicate(b"ended\n")
