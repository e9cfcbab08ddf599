"""Table files: what the header says, how a file is written and opened. A file that exists under its name is complete."""

import json
import mmap
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.errors import UserError
from engram.files import is_full
from engram.memory.placement.engine import SMALLEST_CACHE, RowEngine
from engram.memory.placement.formats import FORMATS, RowFormat
from engram.memory.placement.layout import HEADER_BYTES, SECTOR, RowLayout

_MAGIC = "engram table rows"
_VERSION = 1
_SECTORS = (SECTOR, 4096)

Report = Callable[[str, int, int | None], None]
"""Called with a stage, how much of it is done, and how much there is in all (None: unknown)."""


@dataclass(frozen=True)
class RowSpec:
    """What a table file holds."""

    table: str
    """Which table it is; the file of another one is refused."""
    rows: int
    row_dim: int
    """Numbers in a row (r)."""
    format: str
    """Of the weights, a key of FORMATS."""
    state_dim: int = 0
    """fp32 numbers of optimiser state after the weights of a row; without any, the file is read-only."""

    @property
    def row_format(self) -> RowFormat:
        return FORMATS[self.format]

    @property
    def weight_bytes(self) -> int:
        return self.row_format.row_bytes(self.row_dim)

    @property
    def payload(self) -> int:
        return self.weight_bytes + 4 * self.state_dim


def create(path: Path, spec: RowSpec, pieces: Iterable[Tensor], report: Report | None = None) -> None:
    """Write a table file; UserError when the disk has no room for it or can't be written.

    Args:
        path: of the file.
        spec: what it holds.
        pieces: payloads of all rows in order, uint8 [n, payload] at a time.
        report: told how many rows have been written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # of processes that were killed, as large as this one
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    layout = RowLayout(spec.rows, spec.payload, _sector(path.parent), bool(spec.state_dim), secrets.randbits(32))
    _require_room(path, layout.size)
    try:
        with _opened(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as file:
            os.posix_fallocate(file, 0, layout.size)
            os.pwrite(file, _header(spec, layout), 0)
            os.fsync(file)
        with _opened(temporary, os.O_RDWR, direct=True) as file:
            engine = RowEngine(file, path, layout, SMALLEST_CACHE * (layout.payload + 256))
            first = 0
            for part in _blocks(pieces, layout.group):
                engine.fill(first, part)
                first += len(part)
                if report is not None:
                    report(f"writing {path.name}", first, spec.rows)
            assert first == spec.rows
            engine.close()
            os.fsync(file)
        temporary.rename(path)
    except OSError as problem:
        if is_full(problem):
            raise _no_room(path, layout.size) from None
        raise UserError(f"table file {path} can't be written: {problem.strerror}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _blocks(pieces: Iterable[Tensor], group: int) -> Iterator[Tensor]:
    """The same rows in pieces of whole blocks of `group` rows, except for the last."""
    rest: Tensor | None = None
    for piece in pieces:
        rows = piece if rest is None or not len(rest) else torch.cat([rest, piece])
        whole = len(rows) // group * group
        if whole:
            yield rows[:whole].contiguous()
        rest = rows[whole:]
    if rest is not None and len(rest):
        yield rest.contiguous()


def open_file(path: Path, spec: RowSpec) -> tuple[int, RowLayout]:
    """Descriptor, which the caller closes, and layout of a table file.

    Raises UserError when there is no such file, or it is cut off or another table's.
    """
    layout = layout_of(path, spec)
    return _open(path, os.O_RDWR if spec.state_dim else os.O_RDONLY, direct=True), layout


def layout_of(path: Path, spec: RowSpec) -> RowLayout:
    """Layout of a table file according to its header; UserError as `open_file`."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as problem:
        raise UserError(f"table file {path} can't be read: {problem.strerror}") from None
    found = _read_header(path, head)
    wanted = {**asdict(spec), "version": _VERSION}
    for name, value in wanted.items():
        if found.get(name) != value:
            raise UserError(f"table file {path} is another's: its {name} is {found.get(name)!r} instead of {value!r}")
    layout = RowLayout(spec.rows, spec.payload, found["sector"], bool(spec.state_dim), found["salt"])
    if size != layout.size:
        raise UserError(f"table file {path} is cut off: it has {size:,} bytes instead of {layout.size:,}")
    return layout


def _header(spec: RowSpec, layout: RowLayout) -> bytes:
    content = {"magic": _MAGIC, "version": _VERSION, **asdict(spec), "sector": layout.sector, "salt": layout.salt}
    text = json.dumps(content).encode()
    assert len(text) < HEADER_BYTES
    return text.ljust(HEADER_BYTES)


def _read_header(path: Path, head: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        content = json.loads(head)
        if isinstance(content, dict) and content.get("magic") == _MAGIC:
            return content
    raise UserError(f"{path} is not a table file of this program")


def _require_room(path: Path, size: int) -> None:
    if shutil.disk_usage(path.parent).free < size:
        raise _no_room(path, size)


def _no_room(path: Path, size: int) -> UserError:
    free = shutil.disk_usage(path.parent).free
    return UserError(f"table file {path} takes {size / 1e9:.3g} GB of disk; {free / 1e9:.3g} GB are free there")


def _open(path: Path, flags: int, direct: bool = False) -> int:
    """A descriptor; without direct I/O where the file system does not support it."""
    if direct and hasattr(os, "O_DIRECT"):
        with suppress(OSError):
            return os.open(path, flags | os.O_DIRECT, 0o644)
    return os.open(path, flags, 0o644)


@contextmanager
def _opened(path: Path, flags: int, direct: bool = False) -> Iterator[int]:
    file = _open(path, flags, direct)
    try:
        yield file
    finally:
        os.close(file)


def _sector(folder: Path) -> int:
    """Unit of direct I/O in a folder, found by trying, since not every file system tells."""
    probe = folder / f".sector.{os.getpid()}.tmp"
    try:
        probe.write_bytes(bytes(max(_SECTORS)))
        with _opened(probe, os.O_RDONLY, direct=True) as file, mmap.mmap(-1, max(_SECTORS)) as room:
            for sector in _SECTORS:
                with suppress(OSError), memoryview(room) as view, view[:sector] as part:
                    os.preadv(file, [part], sector if sector < max(_SECTORS) else 0)
                    return sector
    except OSError as problem:
        raise UserError(f"{folder} can't be written: {problem.strerror}") from None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return max(_SECTORS)
