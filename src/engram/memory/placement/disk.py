"""Table rows in a file, with the hot ones cached in RAM."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from engram.memory.placement import row_file
from engram.memory.placement.engine import RowEngine, Traffic
from engram.memory.placement.journal import Journal
from engram.memory.placement.row_file import RowSpec
from engram.memory.placement.rows import RowUpdate

_PASS_BYTES = 1 << 26


class DiskRows:
    """The rows of one table file. One thread at a time may use it.

    Args:
        path: the file.
        spec: what it must hold.
        cache_bytes: RAM for hot rows.
        state: numbers per row in each part of the optimiser state; they add up to the spec's `state_dim`.

    Raises UserError when the file is missing, damaged, foreign, or does not fit the cache.
    """

    def __init__(self, path: Path, spec: RowSpec, cache_bytes: int, state: tuple[int, ...] = ()) -> None:
        assert sum(state) == spec.state_dim
        self.spec, self.state = spec, state
        self._file, layout = row_file.open_file(path, spec)
        try:
            self.engine = RowEngine(self._file, path, layout, cache_bytes)
        except BaseException:
            os.close(self._file)
            raise
        self.journal = Journal(self.engine, path)

    @property
    def traffic(self) -> Traffic:
        return self.engine.traffic

    def prefetch(self, ids: Tensor) -> None:
        """Bring rows int64 [U] into RAM."""
        self.engine.prefetch(ids)

    def read(self, ids: Tensor) -> Tensor:
        """Weights fp32 [U, r] of distinct rows int64 [U]."""
        return self.spec.row_format.decode(self.engine.fetch(ids, self.spec.weight_bytes, counted=True))

    def update(self, ids: Tensor, grad: Tensor, change: RowUpdate, step: int) -> None:
        """Apply `change` to copies of distinct rows int64 [U] with their gradients fp32 [U, r], and store the result."""
        at_once = max(1, self.engine.slots // 2)
        for part, of_part in zip(ids.split(at_once), grad.split(at_once), strict=True):
            records = self.engine.fetch(part, self.spec.payload, counted=False)  # uint8 [U, payload]
            of_weight, *of_state = records.split([self.spec.weight_bytes, *(4 * one for one in self.state)], dim=1)
            weight = of_weight.contiguous().view(self.spec.row_format.dtype)  # [U, r]
            state = [one.contiguous().view(torch.float32) for one in of_state]
            change(weight, state, torch.arange(len(part)), of_part)
            self.engine.store(part, torch.cat([one.view(torch.uint8) for one in (weight, *state)], dim=1), step)

    def passes(self) -> Iterator[Tensor]:
        """All weights in order, fp32 [n, r] at a time; changed rows are written first."""
        self.engine.flush()
        layout = self.engine.layout
        at_once = max(1, _PASS_BYTES // layout.payload // layout.group) * layout.group
        for first in range(0, self.spec.rows, at_once):
            payloads = self.engine.load(first, min(at_once, self.spec.rows - first))
            yield self.spec.row_format.decode(payloads[:, : self.spec.weight_bytes].contiguous())

    def close(self) -> None:
        """Drop the rows in RAM; what was not flushed is lost."""
        self.journal.close()
        self.engine.close()
        os.close(self._file)


def create_rows(path: Path, spec: RowSpec, weights: Iterable[Tensor]) -> None:
    """Write a table file whose optimiser state is zero; UserError as `row_file.create`.

    Args:
        path: of the file.
        spec: what it holds.
        weights: all rows in order, fp32 [n, r] at a time.
    """

    def payloads() -> Iterator[Tensor]:
        for piece in weights:
            encoded = spec.row_format.encode(piece)  # uint8 [n, bytes]
            yield torch.cat([encoded, encoded.new_zeros(len(encoded), 4 * spec.state_dim)], dim=1) if spec.state_dim else encoded

    row_file.create(path, spec, payloads())
