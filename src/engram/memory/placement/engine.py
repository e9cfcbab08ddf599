"""Python side of the compiled reader and writer of rows in a file (`engram/kernels/disk`)."""

import errno
import functools
import os
import subprocess
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engram.errors import UserError
from engram.files import FULL
from engram.kernels.build import DISK_SOURCES, Library, compiled
from engram.memory.placement.layout import RowLayout

QUEUE_DEPTH = 128
"""Transfers in flight."""
_DAMAGED, _NEWER, _NO_ROOM = 1, 2, 3
SMALLEST_CACHE = 64
"""Rows that a cache must have room for."""


@functools.cache
def library() -> Library:
    """The compiled code; UserError when it can't be compiled."""
    try:
        return Library(compiled(DISK_SOURCES))
    except (RuntimeError, OSError, subprocess.SubprocessError) as problem:
        raise UserError(f"tables on disk need a C++ compiler: {problem}") from None


@dataclass(frozen=True)
class Traffic:
    """Rows of a table that were moved since it was opened."""

    asked: int
    """Asked for, each counted once per call."""
    read: int
    """Read from the file."""
    written: int
    """Written to the file."""

    @property
    def hit_rate(self) -> float | None:
        """Share of the rows asked for that were in RAM already."""
        return 1 - min(self.read, self.asked) / self.asked if self.asked else None

    def since(self, before: "Traffic") -> "Traffic":
        return Traffic(self.asked - before.asked, self.read - before.read, self.written - before.written)

    @classmethod
    def sum(cls, counts: "Iterable[Traffic | None]") -> "Traffic | None":
        """Of several tables together; None if none of them is on disk."""
        there = [one for one in counts if one is not None]
        return cls(sum(c.asked for c in there), sum(c.read for c in there), sum(c.written for c in there)) if there else None


class RowEngine:
    """The rows of one open file, with a bounded cache in RAM. Only one thread at a time may use it.

    Args:
        file: descriptor, opened for direct I/O where the file system supports it.
        path: for messages.
        layout: of the file.
        cache_bytes: RAM for hot rows, including their bookkeeping.

    Ids are int64 [U] and distinct. All calls raise UserError when the file is damaged or foreign, or the disk is full.
    """

    def __init__(self, file: int, path: Path, layout: RowLayout, cache_bytes: int) -> None:
        self._library, self.path, self.layout = library(), path, layout
        each = layout.payload + self._library.count("rows_slot_overhead")
        slots = min(layout.rows, cache_bytes // each)
        if slots < min(layout.rows, SMALLEST_CACHE):
            raise UserError(
                f"a table cache of {cache_bytes:,} bytes holds {slots} rows of {path}; at least {SMALLEST_CACHE * each:,} bytes are needed"
            )
        self.slots = slots
        place = (layout.start, layout.payload, layout.sector, layout.group, layout.block, layout.salt)
        self._handle = self._library.count("rows_open", file, layout.rows, *place, slots, QUEUE_DEPTH, True)
        if not self._handle:
            raise UserError(f"{path}: there is no memory for a table cache of {cache_bytes / 1e9:.3g} GB")
        self._free = weakref.finalize(self, self._library.call, "rows_close", self._handle)
        self._traffic_at_close: Traffic | None = None

    def close(self) -> None:
        """Drop the rows in RAM; afterwards only `traffic` may be asked for."""
        self._traffic_at_close = self.traffic
        self._free()

    @property
    def traffic(self) -> Traffic:
        if self._traffic_at_close is not None:
            return self._traffic_at_close
        out = torch.zeros(3, dtype=torch.int64)
        self._library.call("rows_statistics", self._open_handle(), out)
        return Traffic(*out.tolist())

    def prefetch(self, ids: Tensor) -> None:
        """Read rows into RAM, up to half of the cache."""
        self._do("rows_prefetch", ids, len(ids))

    def fetch(self, ids: Tensor, length: int, counted: bool) -> Tensor:
        """The first `length` bytes of the rows' payloads, uint8 [U, length]; `counted`: whether they count as asked for in the traffic."""
        out = torch.empty(len(ids), length, dtype=torch.uint8)
        self._do("rows_fetch", ids, len(ids), 0, length, counted, out)
        return out

    def store(self, ids: Tensor, payloads: Tensor, step: int) -> None:
        """Store new payloads uint8 [U, payload] for rows that `step` changed; the old ones go to the journal first."""
        self._do("rows_store", ids, len(ids), payloads, step)

    def flush(self) -> None:
        """Write every changed row and wait until the device has it."""
        self._do("rows_flush")

    def fill(self, first: int, payloads: Tensor) -> None:
        """Write payloads uint8 [n, payload] of the rows from `first` on, past the cache; `first` is a multiple of the layout's group."""
        self._do("rows_fill", first, len(payloads), payloads, 0)

    def load(self, first: int, n: int) -> Tensor:
        """Read payloads uint8 [n, payload] of the rows from `first` on, past the cache (flush before); `first` as in `fill`."""
        out = torch.empty(n, self.layout.payload, dtype=torch.uint8)
        self._do("rows_load", first, n, out)
        return out

    def journal(self, file: int, step: int) -> None:
        """From now on, save the old payload of each row to `file` when it changes for the first time after `step`; -1: save nothing."""
        self._library.call("rows_journal", self._open_handle(), file, step)

    def undo(self, file: int, offset: int) -> int:
        """Restore the rows saved in a journal; returns their number."""
        found = self._library.count("rows_undo", self._open_handle(), file, offset)
        if found < 0:
            self._fail(found)
        return found

    def _open_handle(self) -> int:
        assert self._free.alive, "the rows are closed"
        return self._handle

    def _do(self, name: str, *arguments: Tensor | int | bool) -> None:
        status = self._library.count(name, self._open_handle(), *arguments)
        if status:
            self._fail(status)

    def _fail(self, status: int) -> None:
        if status == _NO_ROOM:
            raise AssertionError("more rows at once than half of the cache holds")
        if status in (_DAMAGED, _NEWER):
            row = self._library.count("rows_at_fault", self._handle)
            what = "does not match its checksum" if status == _DAMAGED else "is of a later step than the rest"
            raise UserError(f"table file {self.path} is damaged: row {row} {what}")
        if -status in FULL:
            raise UserError(f"the disk of table file {self.path} is full; what was trained up to the last checkpoint is kept")
        if -status == errno.EIO and os.stat(self.path).st_size < self.layout.size:
            raise UserError(f"table file {self.path} is cut off: {os.stat(self.path).st_size:,} bytes instead of {self.layout.size:,}")
        raise UserError(f"table file {self.path} can't be used: {os.strerror(-status)}")
