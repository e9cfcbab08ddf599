"""Where the processes of a session listen."""

from collections.abc import Iterable
from contextlib import suppress

import psutil

LOOPBACK = {"127.0.0.1", "::1"}


def listening(processes: Iterable[psutil.Process]) -> set[str]:
    """The addresses on which any of these processes waits for somebody to connect."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found |= {one.laddr.ip.removeprefix("::ffff:") for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    return found
