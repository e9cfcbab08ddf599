"""Tables of a trained model in a format of serving, in host RAM or in files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engram.memory.module import MemoryLookup
from engram.memory.placement.disk import DiskRows, create_rows
from engram.memory.placement.engine import Traffic
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.row_file import Report, RowSpec
from engram.memory.placement.rows import EncodedRows, HostRows, Rows
from engram.memory.placement.worker import Worker


@dataclass
class ServedTables:
    """The tables of one lookup, served from elsewhere."""

    rows: list[Rows]
    worker: Worker

    @property
    def traffic(self) -> Traffic | None:
        """Of the tables on disk together; None: they are in RAM."""
        return Traffic.sum(rows.traffic for rows in self.rows if isinstance(rows, DiskRows))

    def close(self) -> None:
        """End the background work and close the files."""
        self.worker.close()
        for rows in self.rows:
            if isinstance(rows, DiskRows):
                rows.close()


def serve(lookup: MemoryLookup, rows: list[Rows], prefetch: bool = True) -> ServedTables:
    """Let a lookup read its tables from `rows`, one for each of its sets, in their order."""
    served = ServedTables(rows, Worker())
    for table, its_rows in zip(lookup.table_sets, rows, strict=True):
        table.move_out(its_rows, served.worker)
        table.weight = nn.Parameter(table.weight.to("meta"), requires_grad=False)  # the rows are elsewhere; here they cost nothing
    lookup.move_out(served.worker, prefetch)
    return served


def host_rows(weights: Iterable[Tensor], rows: int, row_dim: int, row_format: str) -> Rows:
    """A table [rows, row_dim] in RAM, in one of FORMATS, of all rows in their order, fp32 [n, r] at a time."""
    if row_format == "fp32":
        return HostRows(_filled(torch.empty(rows, row_dim), weights), [])
    kind = FORMATS[row_format]
    return encoded_rows(map(kind.encode, weights), rows, row_dim, row_format)


def encoded_rows(stored: Iterable[Tensor], rows: int, row_dim: int, row_format: str) -> Rows:
    """The same of rows that are encoded already, uint8 [n, bytes] at a time."""
    kind = FORMATS[row_format]
    return EncodedRows(_filled(torch.empty(rows, kind.row_bytes(row_dim), dtype=torch.uint8), stored), kind.decode)


def _filled(table: Tensor, pieces: Iterable[Tensor]) -> Tensor:
    """The table with its rows, without a second one beside it."""
    first = 0
    for piece in pieces:
        table[first : first + len(piece)] = piece
        first += len(piece)
    assert first == len(table)
    return table


def disk_rows(path: Path, weights: Iterable[Tensor], spec: RowSpec, cache_bytes: int, report: Report | None = None) -> DiskRows:
    """A table in a file, which is made where it is not there; what it holds is `spec`, without optimiser state.

    UserError as `row_file.create` and `row_file.open_file`.
    """
    if not path.exists():
        create_rows(path, spec, weights, report)
    return DiskRows(path, spec, cache_bytes)
