"""Files and folders that are written whole or not at all, and what a disk says when it can't take them."""

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a disk says that has no room, and one on which a quota is used up."""
REFUSALS = FULL | {
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE),
}
"""What a disk or a machine says that nobody foresees at every place; other OSErrors are bugs."""
_LOCK = "lock"
_STALE_S = 60.0
"""A temporary folder is made and locked in much less."""
_REMOVALS, _REMOVAL_S = 10, 0.1
_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (safetensors, tokenizers) tell the system's error, in exceptions of their own."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that, even if the process is killed, either the whole new file is there or what was there before.

    Raises OSError, which names the file, when the folder can't be written.
    """
    # The suffix keeps it out of any glob for a kind of file; the unique part lets two processes write the same one.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with naming(path):
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # what was in the way says more than this
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill: at the end of the block it is synced and takes the place of `target`; when the block fails it is gone.

    What killed processes have left of the same is removed first: on a disk that is nearly full it may be what is in the way.
    Raises OSError, which names the folder or a file in it.
    """
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{target.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.mkdir()
        try:
            yield temporary
            publish(temporary, target)
        except BaseException as problem:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(problem, OSError) and isinstance(problem.filename, str):  # there is no file of that name any more
                problem.filename = problem.filename.replace(str(temporary), str(target))
            raise


@contextmanager
def temporary_folder(prefix: str, parent: Path) -> Iterator[Path]:
    """A folder in `parent` that only this user may enter, removed at the end of the block; `remove_left` removes those of the killed.

    Raises OSError, which names the folder, when it can't be made.
    """
    remove_left(prefix, [parent])
    with naming(parent), ExitStack() as stack:
        made = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))  # 0700
        stack.callback(_remove, made)
        lock = stack.enter_context((made / _LOCK).open("w"))  # held as long as this process lives
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = made.with_name(made.name[1:])  # only now: others take an unlocked one for dead
        stack.callback(_remove, folder)
        made.rename(folder)
        kept = stack.pop_all()
    with kept:
        yield folder


def remove_left(prefix: str, places: Iterable[Path]) -> None:
    """Remove temporary folders whose process was killed; one of another user, or of a process that lives, stays."""
    for place in set(places):
        for left in place.glob(f"{prefix}*"):
            _remove_if_dead(left)
        for left in place.glob(f".{prefix}*"):
            _remove_if_stale(left)


def _remove_if_stale(folder: Path) -> None:
    """Remove a folder of this user whose process was killed before it had locked it."""
    with suppress(OSError):
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and time.time() - found.st_mtime > _STALE_S:
            _remove(folder)


def _remove_if_dead(folder: Path) -> None:
    with suppress(OSError):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return
        try:
            with (folder / _LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
        except FileNotFoundError:  # it was locked before it had its name: somebody was about to remove it
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder in which processes that are just ending may still make files."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_REMOVAL_S)


def publish(temporary: Path, target: Path) -> None:
    """Sync a complete folder to the disk, then give it its name."""
    for path in [*temporary.iterdir(), temporary]:
        sync(path)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; OSError, which names it, when the disk does not take it."""
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let OSErrors of a block name `path` if they name nothing, and make one of what Rust's libraries raise in their place."""
    try:
        yield
    except OSError as problem:
        if problem.errno and problem.filename is None:
            problem.filename = str(path)
        raise
    except Exception as problem:
        if (found := _RUST.search(str(problem))) is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from None


def is_full(problem: BaseException) -> bool:
    """Whether a disk had no room."""
    return isinstance(problem, OSError) and problem.errno in FULL


def refusal(problem: OSError) -> str:
    """What a disk or a machine refuses, in one line: which file or folder, why, and what helps if there is no room."""
    named = [str(name) for name in (problem.filename, problem.filename2) if name is not None]
    why = problem.strerror or str(problem)
    if problem.errno == errno.EFBIG:
        why += " for the limit that is set here (`ulimit -f`)"
    elif is_full(problem):
        why += "; make room there, and the same command goes on"
    return ": ".join([*named[-1:], why])
