"""From token ids to the memory vectors of all sites."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from engram.history import History
from engram.memory.designs.base import Memory
from engram.memory.hashing import NgramHash
from engram.memory.placement.fetcher import Fetcher, Request
from engram.memory.placement.worker import Worker
from engram.memory.tables import EmbeddingTables

MakeTables = Callable[[list[int], int], EmbeddingTables]
"""Makes a set of tables from the rows of each head and the numbers in a row."""


class MemoryLookup(nn.Module):
    """From token ids to the memory vectors of every site. It depends on the tokens only and runs before the first layer.

    Args:
        memory: the design.
        compression: int64 [V], canonical id of every token.
        pad_id: token id that stands before the start of a sequence in the N-grams.
        make_tables: makes each set of tables.
    """

    compression: Tensor

    def __init__(self, memory: Memory, compression: Tensor, pad_id: int, make_tables: MakeTables = EmbeddingTables) -> None:
        super().__init__()
        self.memory = memory
        ids = compression if memory.compression else torch.arange(len(compression))
        self.register_buffer("compression", ids, persistent=False)
        self.hash = NgramHash.from_config(memory, int(ids.max()) + 1, int(ids[pad_id]))
        self.tables = nn.ModuleList(make_tables(sizes, memory.row_dim) for sizes in self.hash.rows)
        self.fetcher: Fetcher | None = None
        """Set when the rows are outside the module."""

    def move_out(self, worker: Worker, prefetch: bool) -> None:
        """From now on `worker` fetches the rows. Each of the tables must have been moved out before (`EmbeddingTables.move_out`)."""
        self.fetcher = Fetcher(self.table_sets, self.hash, self.compression, worker, prefetch)

    @property
    def table_sets(self) -> list[EmbeddingTables]:
        """The sets of tables, one per table layer of the design."""
        return [table for table in self.tables if isinstance(table, EmbeddingTables)]

    def request(self, tokens: Tensor, past: History | None = None) -> Request | None:
        """Begin to fetch the rows that the tokens int64 [B, T] read, before they go through the model; None if the rows are in the module.

        The request is for one forward pass with the same tokens, and records them in `past`.
        """
        return None if self.fetcher is None else self.fetcher.request(tokens, past or History())

    def vectors(self, tokens: Tensor, past: History, request: Request | None = None) -> Callable[[int], Tensor]:
        """Token ids int64 [B, T] -> a function from the number of a site to its memory vectors [B, T, d_mem].

        Rows in the module are looked up at once. Rows outside it are asked for at once, unless `request` has done so, and waited for when
        the function is called.
        """
        if self.fetcher is None:
            return self(tokens, past).__getitem__
        coming = (request or self.fetcher.request(tokens, past)).fetch()
        if self.memory.sites_of_a_row == 1:
            return coming.vectors
        slices = functools.cache(lambda: self._slices(coming.vectors(0)))
        return lambda site: slices()[site]

    def forward(self, tokens: Tensor, past: History) -> list[Tensor]:
        """Token ids int64 [B, T] -> the memory vectors of each site, [B, T, d_mem]."""
        if self.fetcher is not None:
            site = self.vectors(tokens, past)
            return [site(number) for number in range(len(self.memory.sites))]
        indices = self.indices(tokens, past)  # [sets, B, T, H]
        rows = [tables(index) for tables, index in zip(self.tables, indices, strict=True)]  # [B, T, H row_dim] each
        return rows if self.memory.sites_of_a_row == 1 else self._slices(rows[0])

    def indices(self, tokens: Tensor, past: History) -> Tensor:
        """Token ids int64 [B, T] -> what tables read rows by, [sets, B, T, H]; int32 for a GPU's kernels (`EmbeddingTables.forward`)."""
        if past.is_empty and all(table.in_kernels for table in self.table_sets):
            return self.hash.rows_on_gpu(tokens, self.compression)
        indices: Tensor = self.hash(self.compression[tokens], past)
        return indices

    def _slices(self, rows: Tensor) -> list[Tensor]:
        """Rows that the sites share, [B, T, H row_dim] -> the slice of each, [B, T, H slice_dim]."""
        slices = rows.unflatten(-1, (self.memory.reads, self.memory.sites_of_a_row, self.memory.slice_dim))
        return [one.flatten(-2) for one in slices.unbind(-2)]
