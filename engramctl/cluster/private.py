"""A Ray of our own on this machine: nobody but its owner reaches it, and nothing of it stays behind.

Whoever can talk to a Ray can run code as the user who started it. So a private one listens on loopback only, asks every caller for a
token that is made anew for each session, and keeps its sockets and logs in a folder that only the owner may enter.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engram.errors import UserError
from engram.files import remove_left, temporary_folder

_TOKEN_NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_PREFIX = "engramctl-ray-"
_MAX_FOLDER_BYTES = 107 - len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""What the path of a Unix socket (107 bytes) leaves for the folder."""
_ROOM = 16 << 20
"""Bytes that Ray's logs and sockets may need. It starts with less, but waits for minutes, or dies later, where there is nothing."""
_FULL = 1 << 20
"""Bytes that are so few that they are the reason of whatever happens."""
_OBJECT_STORE = 128 << 20
"""Bytes of shared memory for what processes send each other, which is little. Ray's own choice, 30 % of all memory, does not fit into
the 64 MB of shared memory that a container has, and not onto many a disk instead."""


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
        yield {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": str(folder / "r"),
        }
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
    remove_left_folders()
    parent = _parent()
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(_PREFIX, parent))
        except OSError as problem:
            raise UserError(f"Ray's temporary folder can't be made in {parent}: {problem.strerror}; set TMPDIR to another folder") from None
        yield folder


def remove_left_folders() -> None:
    """Remove the folders of private Rays whose session was killed."""
    remove_left(_PREFIX, [*_places(), Path(os.environ.get("TMPDIR") or "/tmp")])


def _places() -> list[Path]:
    """TMPDIR, and what there is where Ray can't use it; Python itself passes over a TMPDIR that is full to the last byte."""
    return list(dict.fromkeys((Path(tempfile.gettempdir()).absolute(), Path("/tmp"), Path("/var/tmp"))))


def _parent() -> Path:
    """The first place that Ray can use: its sockets need short paths in ASCII, its logs some room. UserError without any."""
    places = _places()
    needed, full = _ROOM + (0 if _shared_memory() >= _OBJECT_STORE else _OBJECT_STORE), []
    for parent in places:
        short = len(os.fsencode(parent / f"{_PREFIX}12345678")) <= _MAX_FOLDER_BYTES
        if short and str(parent).isascii() and os.access(parent, os.W_OK | os.X_OK):
            if (free := shutil.disk_usage(parent).free) >= needed:
                return parent
            full.append(f"{parent} has {free / 1e6:.3g} MB")
    if full:
        raise UserError(f"Ray needs {needed / 1e6:.3g} MB for its temporary folder, {', '.join(full)}; make room there, or set TMPDIR")
    raise UserError(f"Ray needs a short path in plain ASCII for its sockets; TMPDIR is {places[0]}, and /tmp can't be written")


def no_room(arguments: dict[str, Any]) -> str | None:
    """What there is to say if the disk of a private Ray's folder has filled up; Ray itself says that it waits for something."""
    folder = Path(arguments["_temp_dir"]).parent
    if shutil.disk_usage(folder).free >= _FULL:
        return None
    return f"the disk of its folder {folder} is full; make room there, or set TMPDIR"


def _shared_memory() -> int:
    """Bytes of shared memory that are free; without enough, Ray's object store is a file in its folder."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return 0
