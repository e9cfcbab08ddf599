"""A Ray of our own on this machine: nobody but its owner reaches it, and nothing of it stays behind.

Whoever can talk to a Ray can run code as the user who started it. So a private one listens on loopback only, asks every caller for a
token that is made anew for each session, and keeps its sockets and logs in a folder that only the owner may enter.
"""

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from engram.errors import UserError

_TOKEN_NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_PREFIX = "engramctl-ray-"
_LOCK = "lock"
_STALE_S = 60.0
"""A folder is made and locked in much less."""
_MAX_FOLDER_BYTES = 107 - len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""What the path of a Unix socket (107 bytes) leaves for the folder."""


@contextmanager
def private_ray(folder: Path) -> Iterator[dict[str, Any]]:
    """The arguments of `ray.init` for a private Ray in `folder`; Ray's settings are put back at the end of the block."""
    from ray._private import ray_constants

    kept = {name: os.environ.pop(name, None) for name in _TOKEN_NAMES}
    cluster = ray_constants.ENABLE_RAY_CLUSTER
    try:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        read_authentication()
        # As on Windows and macOS: otherwise Ray replaces 127.0.0.1 by an address that others can reach.
        ray_constants.ENABLE_RAY_CLUSTER = False
        # Ray opens its own folder to everybody; the one around it stays closed.
        yield {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": str(folder / "r")}
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = cluster
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def read_authentication() -> None:
    """Have Ray read its settings of authentication again: it does so once, when it is imported."""
    from ray import _raylet

    raylet: Any = _raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user may enter, with a path short enough for Ray's sockets; removed at the end of the block.

    UserError when there is no place for it. Folders of sessions that were killed are removed as well.
    """
    parent = _parent()
    for left in parent.glob(f"{_PREFIX}*"):
        _remove_if_dead(left)
    for left in parent.glob(f".{_PREFIX}*"):
        _remove_if_stale(left)
    with ExitStack() as stack:
        try:
            made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))  # 0700
            stack.callback(shutil.rmtree, made, ignore_errors=True)
            lock = stack.enter_context((made / _LOCK).open("w"))  # held as long as this process lives
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = made.with_name(made.name[1:])  # only now: others take an unlocked one for dead
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            made.rename(folder)
        except OSError as problem:
            raise UserError(f"Ray's temporary folder can't be made in {parent}: {problem.strerror}; set TMPDIR to another folder") from None
        yield folder


def _remove_if_dead(folder: Path) -> None:
    """Remove the folder of a session whose process is gone; one of another user, or with a living process, stays."""
    with suppress(OSError):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_stale(folder: Path) -> None:
    """Remove a folder of this user whose process was killed before it had locked it."""
    with suppress(OSError):
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and time.time() - found.st_mtime > _STALE_S:
            shutil.rmtree(folder, ignore_errors=True)


def _parent() -> Path:
    """TMPDIR, or /tmp where Ray can't use TMPDIR: its sockets need short paths in ASCII."""
    wanted = Path(tempfile.gettempdir()).absolute()
    for parent in (wanted, Path("/tmp"), Path("/var/tmp")):
        short = len(os.fsencode(parent / f"{_PREFIX}12345678")) <= _MAX_FOLDER_BYTES
        if short and str(parent).isascii() and os.access(parent, os.W_OK | os.X_OK):
            return parent
    raise UserError(f"Ray needs a short path in plain ASCII for its sockets; TMPDIR is {wanted}, and /tmp can't be written")
