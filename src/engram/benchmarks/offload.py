"""What offloading is measured with: a dense model with one memory layer, and tables of any length with generated rows."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engram.benchmarks.shapes import memory_with_rows
from engram.config.model import ModelConfig, MoEConfig, MultiHeadAttentionConfig
from engram.errors import FieldError, UserError
from engram.memory.designs.base import NO_ROWS
from engram.memory.designs.engram import Engram
from engram.memory.placement import row_file
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.layout import SECTOR, RowLayout
from engram.memory.placement.row_file import Report, RowSpec
from engram.memory.placement.rows import Rows
from engram.memory.placement.serving import encoded_rows
from engram.scaling.accounting import table_rows

_HEAD_DIM = 64
_BLOCK_ROWS = 1 << 18
"""Rows that are drawn; longer tables repeat them. The contents of a row do not matter for speed, its place does."""


@dataclass(frozen=True)
class Shape:
    """Shape of a dense model with a memory in its second layer, as in the paper's measurement of inference (6.4)."""

    width: int
    n_layers: int
    memory_dim: int
    """d_mem, over all heads."""
    hash_heads: int
    """Per order; the orders are 2 and 3."""

    def model(self, vocab_size: int, rows: int) -> ModelConfig:
        """The model with tables of about `rows` rows in all; FieldError when the shape is impossible."""
        if self.width % _HEAD_DIM:
            raise FieldError("width", f"{self.width}: a multiple of {_HEAD_DIM} is expected")
        reads = 2 * self.hash_heads
        if self.memory_dim % reads:
            raise FieldError("memory_dim", f"{self.memory_dim}: a multiple of the {reads} rows that a token reads is expected")
        return with_rows(self._model(vocab_size), rows)

    def _model(self, vocab_size: int) -> ModelConfig:
        return ModelConfig(
            vocab_size=vocab_size,
            width=self.width,
            n_layers=self.n_layers,
            attention=MultiHeadAttentionConfig(n_heads=self.width // _HEAD_DIM),
            moe=MoEConfig(
                n_routed_experts=0,
                top_k=0,
                expert_width=0,
                shared_width=0,
                n_dense_layers=self.n_layers,
                dense_width=8 * self.width // 3 // 2 * 2,
            ),
            memory=Engram(layers=(1,), table_sizes=(NO_ROWS, NO_ROWS), n_heads=self.hash_heads, memory_dim=self.memory_dim),
        )


def with_rows(model: ModelConfig, rows: int) -> ModelConfig:
    """The model with about `rows` rows in all of its tables together."""
    assert model.memory is not None
    return model.model_copy(update={"memory": memory_with_rows(model.memory, rows)})


def file_bytes(model: ModelConfig, row_format: str, state_dim: int = 0) -> int:
    """Bytes of disk that the tables of a model take."""
    assert model.memory is not None
    payload = FORMATS[row_format].row_bytes(model.memory.row_dim) + 4 * state_dim
    return RowLayout(table_rows(model.memory), payload, SECTOR, bool(state_dim), 0).size


def require_disk(folder: Path, needed: int, tell: Callable[[str], None]) -> None:
    """Tell how much disk a measurement takes; UserError when that much is not free."""
    free = shutil.disk_usage(folder).free
    tell(f"takes {needed / 1e9:.3g} GB of disk in {folder} ({free / 1e9:.3g} GB are free), removed at the end")
    if needed > 0.95 * free:
        raise UserError(f"{needed / 1e9:.3g} GB of disk are needed in {folder}, {free / 1e9:.3g} GB are free; take a smaller table")


def generated(row_format: str, row_dim: int, rows: int) -> Iterator[Tensor]:
    """Encoded rows, uint8 [n, bytes] at a time: the same drawn ones over and over."""
    drawn = torch.empty(_BLOCK_ROWS, row_dim).normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    block = FORMATS[row_format].encode(drawn)
    for first in range(0, rows, _BLOCK_ROWS):
        yield block[: rows - first]


def generated_file(path: Path, model: ModelConfig, row_format: str, report: Report | None) -> RowSpec:
    """Write a file with the tables of a model, every byte of them; returns what it holds."""
    assert model.memory is not None
    spec = RowSpec("bench", table_rows(model.memory), model.memory.row_dim, row_format)
    row_file.create(path, spec, generated(row_format, spec.row_dim, spec.rows), report)
    return spec


def generated_ram(model: ModelConfig, row_format: str) -> Rows:
    """The same tables in RAM, to be served from there."""
    assert model.memory is not None
    rows, row_dim = table_rows(model.memory), model.memory.row_dim
    return encoded_rows(generated(row_format, row_dim, rows), rows, row_dim, row_format)
