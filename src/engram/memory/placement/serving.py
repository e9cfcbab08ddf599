"""The tables of a trained model, in host RAM or in files, in one of the serving formats."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engram.memory.lookup import MemoryLookup
from engram.memory.placement.disk import DiskRows, create_rows
from engram.memory.placement.engine import Traffic
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.row_file import RowSpec
from engram.memory.placement.rows import EncodedRows, HostRows, Rows
from engram.memory.placement.worker import Worker


@dataclass
class ServedTables:
    """The tables of one lookup, served from outside the model."""

    rows: list[Rows]
    worker: Worker

    @property
    def traffic(self) -> Traffic | None:
        """Of all tables on disk together; None if they are in RAM."""
        return Traffic.sum(rows.traffic for rows in self.rows if isinstance(rows, DiskRows))

    def close(self) -> None:
        """End the background work and close the files."""
        self.worker.close()
        for rows in self.rows:
            if isinstance(rows, DiskRows):
                rows.close()


def serve(lookup: MemoryLookup, rows: list[Rows], prefetch: bool = True) -> ServedTables:
    """Let a lookup read its tables from `rows`, one for each of its sets, in order."""
    served = ServedTables(rows, Worker())
    for table, its_rows in zip(lookup.table_sets, rows, strict=True):
        table.move_out(its_rows, served.worker)
        table.weight = nn.Parameter(table.weight.to("meta"), requires_grad=False)  # takes no memory here
    lookup.move_out(served.worker, prefetch)
    return served


def host_rows(weights: Iterable[Tensor], rows: int, row_dim: int, row_format: str) -> Rows:
    """A table [rows, row_dim] in RAM, in one of FORMATS; `weights` are all rows in order, fp32 [n, r] at a time."""
    if row_format == "fp32":
        return HostRows(_filled(torch.empty(rows, row_dim), weights), [])
    kind = FORMATS[row_format]
    return encoded_rows(map(kind.encode, weights), rows, row_dim, row_format)


def encoded_rows(stored: Iterable[Tensor], rows: int, row_dim: int, row_format: str) -> Rows:
    """The same from rows that are already encoded, uint8 [n, bytes] at a time."""
    kind = FORMATS[row_format]
    return EncodedRows(_filled(torch.empty(rows, kind.row_bytes(row_dim), dtype=torch.uint8), stored), kind.decode)


def _filled(table: Tensor, pieces: Iterable[Tensor]) -> Tensor:
    """The table filled with its rows, without a second copy in memory."""
    first = 0
    for piece in pieces:
        table[first : first + len(piece)] = piece
        first += len(piece)
    assert first == len(table)
    return table


def disk_rows(path: Path, weights: Iterable[Tensor], spec: RowSpec, cache_bytes: int) -> DiskRows:
    """A table in a file without optimiser state, which is written if it does not exist.

    Raises UserError as `row_file.create` and `row_file.open_file` do.
    """
    if not path.exists():
        create_rows(path, spec, weights)
    return DiskRows(path, spec, cache_bytes)
