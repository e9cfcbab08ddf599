"""What something is, by content: equal fingerprints mean equal values, wherever their files lie.

`identity` is what a result is of: everything that its numbers depend on. Scores, analyses, extensions and fits keep theirs in their
files; one that has another, or none because an earlier version wrote it, answers another question. A trial's id is its own
(`TrialConfig.id`), made of its config, which has the fingerprints of text and tokenizer.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.errors import UserError
from engram.foreign_files import read_bytes

DIGITS = 16
_IDENTITY_DIGITS = 32
_LARGE_BYTES = 1 << 20
"""Larger files are read once; of smaller ones, time and size may be the same after a quick change."""


def fingerprint(value: Any) -> str:
    """Hexadecimal digits that stand for a value: a file by its content, a folder by the names and contents of what is in it.

    Args:
        value: None, text, a number, a path, or mappings and sequences of these.

    Raises UserError when a file can't be read.
    """
    return _digest(json.dumps(_plain(value), sort_keys=True).encode())


def identity(kind: str, parts: Mapping[str, Any]) -> str:
    """Hexadecimal digits that stand for all that a result depends on.

    Args:
        kind: of result: the same parts of another kind are something else.
        parts: by name, what the numbers depend on: values as `fingerprint` takes them. A path stands for the content there.

    Raises UserError when a file can't be read.
    """
    return hashlib.sha256(json.dumps([kind, _typed(parts)], sort_keys=True).encode()).hexdigest()[:_IDENTITY_DIGITS]


def _typed(value: Any) -> Any:
    """A value that no value of another type is equal to: a file is not a mapping that looks like one."""
    if isinstance(value, Path):
        return ["path", _plain(value)]
    if isinstance(value, Mapping):
        return ["mapping", {str(key): _typed(one) for key, one in value.items()}]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ["sequence", [_typed(one) for one in value]]
    return _plain(value)


def files_fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """The fingerprint of some files by their places in a folder and their contents."""
    return fingerprint({file.relative_to(folder).as_posix(): file for file in files})


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        if value.is_dir():
            return {"folder": {file.relative_to(value).as_posix(): _of_file(file) for file in sorted(value.rglob("*")) if file.is_file()}}
        return {"file": _of_file(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    assert value is None or isinstance(value, str | int | float), type(value)
    return value


def _of_file(file: Path) -> str:
    try:
        status = file.stat()
        if status.st_size <= _LARGE_BYTES:
            return hashlib.sha256(read_bytes(file)).hexdigest()
        return _of_large(file, status.st_size, status.st_ctime_ns, status.st_ino)
    except OSError as problem:
        raise UserError(f"{file} can't be read: {problem.strerror or problem}") from None


@functools.lru_cache(maxsize=4096)
def _of_large(file: Path, _size: int, _changed_ns: int, _inode: int) -> str:
    """SHA-256 of a file's content; size and time of change tell when it has to be read again."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]
