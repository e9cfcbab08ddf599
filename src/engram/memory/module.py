"""The parts of a memory inside the model: the lookup of all sites, and the dense weights of one site."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from engram.config import ModelConfig
from engram.designs.base import Memory
from engram.history import History
from engram.memory.hashing import NgramHash
from engram.memory.placement.lookup import Fetcher, Request
from engram.memory.placement.worker import Worker
from engram.memory.tables import EmbeddingTables

MakeTables = Callable[[list[int], int], EmbeddingTables]
"""Tables from the rows of each head and the numbers in a row."""


class MemoryLookup(nn.Module):
    """From token ids to the memory vectors of every site. Depends on tokens only: it runs before the first layer.

    Args:
        memory: the design.
        compression: int64 [V], canonical id of every token.
        pad_id: token id that stands before the start of a sequence in the N-grams.
        make_tables: the kind of tables.
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
        """Of tables whose rows lie outside of the module"""

    def move_out(self, worker: Worker, prefetch: bool) -> None:
        """From now on rows come by `worker`; each of the tables has been moved out before (`EmbeddingTables.move_out`)."""
        self.fetcher = Fetcher(self.table_sets, self.hash, self.compression, worker, prefetch)

    @property
    def table_sets(self) -> list[EmbeddingTables]:
        """The sets of tables, one for each of the design's table layers."""
        return [table for table in self.tables if isinstance(table, EmbeddingTables)]

    def request(self, tokens: Tensor, past: History | None = None) -> Request | None:
        """Begin to bring what the tokens int64 [B, T] read, before they go through the model; None: the rows are in the module.

        The request belongs to one forward pass with the same tokens, and takes note of them in `past`.
        """
        return None if self.fetcher is None else self.fetcher.request(tokens, past or History())

    def vectors(self, tokens: Tensor, past: History, request: Request | None = None) -> Callable[[int], Tensor]:
        """Token ids int64 [B, T] -> a function from the number of a site to its memory vectors [B, T, d_mem].

        Rows in the module are looked up at once. Those that lie elsewhere are asked for at once, where `request` has not done
        it before, and waited for when the function is called.
        """
        if self.fetcher is None:
            return self(tokens, past).__getitem__
        coming = (request or self.fetcher.request(tokens, past)).fetch()
        if self.memory.sites_of_a_row == 1:
            return coming.vectors
        slices = functools.cache(lambda: self._slices(coming.vectors(0)))
        return lambda site: slices()[site]

    def forward(self, tokens: Tensor, past: History) -> list[Tensor]:
        """Token ids int64 [B, T] -> for each site its memory vectors [B, T, d_mem]."""
        if self.fetcher is not None:
            site = self.vectors(tokens, past)
            return [site(number) for number in range(len(self.memory.sites))]
        indices = self.hash(self.compression[tokens], past)  # [sets, B, T, H]
        rows = [tables(index) for tables, index in zip(self.tables, indices, strict=True)]  # [B, T, H row_dim] each
        return rows if self.memory.sites_of_a_row == 1 else self._slices(rows[0])

    def _slices(self, rows: Tensor) -> list[Tensor]:
        """Rows that the sites share, [B, T, H row_dim] -> the part of each, [B, T, H slice_dim]."""
        slices = rows.unflatten(-1, (self.memory.reads, self.memory.sites_of_a_row, self.memory.slice_dim))
        return [one.flatten(-2) for one in slices.unbind(-2)]


class MemorySite(nn.Module):
    """One place where a design adds to the model: its dense weights, as the design declares them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.memory is not None
        self.memory, self.backbone = config.memory, config.backbone
        self.declared = self.memory.weights(self.backbone)
        self.matrices = frozenset(name for name, weight in self.declared.items() if weight.matrix)
        for name, weight in self.declared.items():
            self.register_parameter(name, nn.Parameter(torch.full(weight.shape, weight.centre)))

    def forward(self, vectors: Tensor, stream: Tensor, past: History) -> Tensor:
        """What this site adds (`Memory.add`)."""
        return self.memory.add(self._weights(), vectors, stream, self.backbone, past)

    def gates(self, vectors: Tensor, stream: Tensor) -> Tensor | None:
        """Its gates of the same inputs, [B, T, M]; None where the design has no gate (`Memory.gates`)."""
        return self.memory.gates(self._weights(), vectors, stream, self.backbone)

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._parameters.items() if weight is not None}
