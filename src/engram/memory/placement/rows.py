"""The interface to a table's rows wherever they are kept, and rows in this machine's RAM."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engram.kernels import memory_ops

RowUpdate = Callable[[Tensor, list[Tensor], Tensor, Tensor], None]
"""Updates weights [n, r] and state, each fp32 [n, ..], in place at distinct rows int64 [U] by their gradients fp32 [U, r]."""


def widened(rows: Tensor) -> Tensor:
    """Rows in the dtype to compute with: bf16 as fp32, others as they are."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


class Rows(Protocol):
    """Rows that are read and updated by id. Only one thread at a time may use them."""

    def prefetch(self, ids: Tensor) -> None:
        """Get ready to read these rows, int64 [U]."""

    def read(self, ids: Tensor) -> Tensor:
        """Copies of distinct rows int64 [U]: fp32 [U, r] on the CPU."""

    def update(self, ids: Tensor, grad: Tensor, change: RowUpdate, step: int) -> None:
        """Update distinct rows int64 [U] by their gradients fp32 [U, r]; `step` is the optimiser's, from 1."""


class HostRows:
    """Rows in this machine's RAM, whatever device the model is on.

    Args:
        weight: fp32 or bf16 [n, r] on the CPU.
        state: of the optimiser, each fp32 [n, ..] on the CPU.
    """

    def __init__(self, weight: Tensor, state: list[Tensor]) -> None:
        self.weight, self.state = weight, state

    def prefetch(self, ids: Tensor) -> None:
        """Nothing to do."""

    def read(self, ids: Tensor) -> Tensor:
        rows = memory_ops.gather(self.weight, ids)
        return widened(F.embedding(ids, self.weight)) if rows is None else rows

    def update(self, ids: Tensor, grad: Tensor, change: RowUpdate, step: int) -> None:
        change(self.weight, self.state, ids, grad)


class EncodedRows:
    """Rows in this machine's RAM in a serving format, read-only.

    Args:
        stored: uint8 [n, bytes], as `format` encodes them.
        decode: uint8 [U, bytes] -> fp32 [U, r].
    """

    def __init__(self, stored: Tensor, decode: Callable[[Tensor], Tensor]) -> None:
        self.stored, self.decode = stored, decode

    def prefetch(self, ids: Tensor) -> None:
        """Nothing to do."""

    def read(self, ids: Tensor) -> Tensor:
        return self.decode(torch.index_select(self.stored, 0, ids))

    def update(self, ids: Tensor, grad: Tensor, change: RowUpdate, step: int) -> None:
        raise TypeError("rows in a serving format can't be trained")
