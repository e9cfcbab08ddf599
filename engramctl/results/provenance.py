"""Where a result comes from: versions, revision, host."""

import json
import platform
import socket
import subprocess
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from engramctl import __version__

_PACKAGES = ("torch", "numpy", "ray", "tokenizers")
_UNKNOWN = "unknown"


@lru_cache
def git_sha() -> str:
    """Revision of the checkout that this program runs from, with `-dirty` if it has changes; empty outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        sha = _git(folder, "rev-parse", "HEAD")
        return f"{sha}-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else sha
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def versions(device: str = "cpu") -> str:
    """Versions of Python, of the packages that affect a loss and of the kernels in use on a device, as JSON.

    Never raises: this is asked for after training, and a trained trial is kept whatever can't be told about it.
    """
    found = {"python": platform.python_version(), "engramctl": __version__} | {name: package_version(name) for name in _PACKAGES}
    return json.dumps(found | {"kernels": _kernels(device)})


def package_version(package: str) -> str:
    """Version of a package, also of one that was put on the path without pip; "unknown" if it can't be told."""
    with suppress(Exception):
        return version(package)
    with suppress(Exception):
        return str(import_module(package).__version__)
    return _UNKNOWN


def _kernels(device: str) -> str | None:
    try:
        from engram import kernels
        from engram.kernels import gpu

        return gpu.version() if device.startswith("cuda") else kernels.version()
    except Exception:
        return _UNKNOWN


def hostname() -> str:
    """Name of this machine; "unknown" if it has none."""
    try:
        return socket.gethostname()
    except OSError:
        return _UNKNOWN
