"""The parts of a memory inside the model: the lookup of all sites, and the dense weights of one site."""

import torch
from torch import Tensor, nn

from engram.config import ModelConfig
from engram.designs.base import Memory
from engram.history import History
from engram.memory.hashing import NgramHash
from engram.memory.tables import EmbeddingTables


class MemoryLookup(nn.Module):
    """From token ids to the memory vectors of every site. Depends on tokens only: it runs before the first layer.

    Args:
        memory: the design.
        compression: int64 [V], canonical id of every token.
        pad_id: token id that stands before the start of a sequence in the N-grams.
    """

    compression: Tensor

    def __init__(self, memory: Memory, compression: Tensor, pad_id: int) -> None:
        super().__init__()
        self.memory = memory
        ids = compression if memory.compression else torch.arange(len(compression))
        self.register_buffer("compression", ids, persistent=False)
        self.hash = NgramHash.from_config(memory, int(ids.max()) + 1, int(ids[pad_id]))
        self.tables = nn.ModuleList(EmbeddingTables(sizes, memory.row_dim) for sizes in self.hash.rows)

    def forward(self, tokens: Tensor, past: History) -> list[Tensor]:
        """Token ids int64 [B, T] -> for each site its memory vectors [B, T, d_mem]."""
        indices = self.hash(self.compression[tokens], past)  # [sets, B, T, H]
        rows = [tables(index) for tables, index in zip(self.tables, indices, strict=True)]  # [B, T, H row_dim] each
        if self.memory.sites_of_a_row == 1:
            return rows
        slices = rows[0].unflatten(-1, (self.memory.reads, self.memory.sites_of_a_row, self.memory.slice_dim))
        return [one.flatten(-2) for one in slices.unbind(-2)]  # [B, T, H slice_dim] each


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
