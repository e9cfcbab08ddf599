"""Where a result comes from: versions, revision, host."""

import json
import platform
import socket
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("engramctl", "torch", "numpy", "ray", "tokenizers")


@lru_cache
def git_sha() -> str:
    """Revision of the checkout that this program runs from, with `-dirty` if it has changes; empty outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        sha = _git(folder, "rev-parse", "HEAD")
        return f"{sha}-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else sha
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def versions() -> str:
    """Versions of Python, of the packages that affect a loss and of the compiled kernels in use, as JSON."""
    from engram import kernels

    found = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    return json.dumps(found | {"kernels": kernels.version()})


def hostname() -> str:
    """Name of this machine."""
    return socket.gethostname()
