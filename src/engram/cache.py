"""The folder for what can be made again: prepared corpora and compiled kernels."""

import os
import tempfile
from pathlib import Path

import platformdirs

from engram.errors import UserError


def default_cache() -> Path:
    """`$ENGRAMCTL_CACHE`, or the user's cache folder; for a user without a home (a bare id in a container) a private one in `$TMPDIR`.

    Raises UserError when that one belongs to somebody else, who could put code into it.
    """
    if given := os.environ.get("ENGRAMCTL_CACHE"):
        return Path(given)
    usual = Path(platformdirs.user_cache_dir("engramctl"))
    return usual if usual.is_absolute() else _without_home()


def _without_home() -> Path:
    folder = Path(tempfile.gettempdir()) / f"engramctl-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat()
    except OSError as problem:
        raise UserError(
            f"there is no home folder, and {folder} can't be made ({problem.strerror}); set ENGRAMCTL_CACHE or TMPDIR"
        ) from None
    if folder.is_symlink() or owner.st_uid != os.getuid() or owner.st_mode & 0o022:
        raise UserError(f"there is no home folder, and {folder} is not this user's alone; set ENGRAMCTL_CACHE or TMPDIR")
    return folder
