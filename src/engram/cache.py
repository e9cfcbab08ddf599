"""The folder for what can be made again: prepared corpora and compiled kernels."""

import errno
import os
import tempfile
from pathlib import Path

import platformdirs


def default_cache() -> Path:
    """`$ENGRAMCTL_CACHE`, or the user's cache folder; where there is no home (a bare id in a container) a private one in `$TMPDIR`.

    Raises PermissionError when that one can't be made, or belongs to somebody else, who could put code into it.
    """
    if given := os.environ.get("ENGRAMCTL_CACHE"):
        return Path(given)
    usual = Path(platformdirs.user_cache_dir("engramctl"))
    return usual if usual.is_absolute() and _can_be_made(usual) else private_cache()


def _can_be_made(folder: Path) -> bool:
    """Whether a folder is there, or could be made where its nearest existing parent is."""
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return nearest == folder or os.access(nearest, os.W_OK | os.X_OK)


def private_cache() -> Path:
    """A cache folder in `$TMPDIR` that nobody else can write to; PermissionError when it can't be made or is not this user's alone."""
    folder = Path(tempfile.gettempdir()) / f"engramctl-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat()
    except OSError as problem:
        raise _refused(folder, f"it can't be made ({problem.strerror})") from None
    if folder.is_symlink() or owner.st_uid != os.getuid() or owner.st_mode & 0o022:
        raise _refused(folder, "it is not this user's alone")
    return folder


def _refused(folder: Path, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, f"this can't be the cache: {why}; set ENGRAMCTL_CACHE or TMPDIR", str(folder))
