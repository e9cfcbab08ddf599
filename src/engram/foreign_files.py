"""Reading files that others have written, without trust in what they are.

A name may lead to a pipe that nobody writes to, which would be waited for, or to a device or a file larger than memory. Whatever is read
here comes to an end and fits; whatever else is an OSError with the reason in its `strerror`.
"""

import errno
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

MOST_BYTES = 2**28
"""Bytes of a file that is read as a whole."""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file; of a pipe, what its writer sends.

    Raises OSError when it can't be read, has more than `most` bytes, or is a pipe that nobody writes to.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        content = file.read(most + 1)
        if len(content) > most:
            raise _too_large(path, most)
        if not content and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EOPNOTSUPP, "it is a pipe that nobody writes to", str(path))
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a UTF-8 file without a byte order mark, every line end as "\\n"; raises like `read_bytes`, and UnicodeDecodeError."""
    return read_bytes(path, most).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file; OSError like `read_bytes`, ValueError when it is not JSON or nested more deeply than Python follows."""
    try:
        return json.loads(read_bytes(path, most))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_json(text: str) -> Any:
    """The value of a JSON text. ValueError, or RecursionError, when it is none; also when an object in it has a key twice."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:60]!r} stands twice")  # it has no single meaning
    return found


def require_regular(path: Path, most: int | None = MOST_BYTES) -> None:
    """For files that a library opens by itself: OSError unless it is a plain file, or a link to one, of at most `most` bytes."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        what = "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no regular file"
        raise OSError(errno.EOPNOTSUPP, what, str(path))
    if most is not None and status.st_size > most:
        raise _too_large(path, most)


def _too_large(path: Path, most: int) -> OSError:
    return OSError(errno.EOPNOTSUPP, f"it has more than {most:,} bytes", str(path))


def _open_without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # for a pipe without a writer, `open` would wait
    os.set_blocking(descriptor, True)
    return descriptor
