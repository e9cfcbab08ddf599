"""Table rows: looked up by id, with gradients by row.

No step costs anything in proportion to the table: a forward pass copies the distinct rows of the batch into a small leaf tensor, the
backward pass fills that leaf's gradient, and the optimiser writes back the same rows. The rows are in the module or elsewhere
(`engram.memory.placement`); leaf, gradient and update are the same.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.kernels import gpu, memory_ops
from engram.memory.placement.rows import Rows, RowUpdate, widened
from engram.memory.placement.worker import Worker
from engram.memory.row_sums import RowSums

_PIECE = 1 << 22
"""About how many numbers of a table are drawn at once."""
_BLOCK = 16
"""PyTorch draws normal numbers in blocks of this many, and draws the last block again if it is not full."""

Touched = list[tuple[Tensor, Tensor]]
"""For each training pass, row ids int64 [U] and a leaf copy of the rows [U, r]. See `distinct_rows` for repeated ids.

From a GPU's kernels: the row ids of all reads, int32 [n], in the order of a leaf with the memory vectors [..., H r] (n r numbers).
"""


class EmbeddingTables(nn.Module):
    """All heads' tables of one layer, stacked in one matrix.

    Args:
        head_sizes: rows of each head's table, H numbers.
        row_dim: numbers in a row (r).
        kept: number of rows that this process holds; None: all.
        device: where the weight is created and stays when the model moves; `meta` for rows that will be in a file. None: as for any other
            weight.
        dtype: of the stored rows, fp32 or bf16; bf16 rows are read as fp32.
    """

    offsets: Tensor
    """int64 [H]: first row of each head's table"""

    def __init__(
        self, head_sizes: list[int], row_dim: int, kept: int | None = None, device: str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        sizes = torch.tensor(head_sizes)
        weight = torch.empty(sum(head_sizes) if kept is None else kept, row_dim, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight, requires_grad=False)  # updated by row, never through .grad
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
        self.touched: Touched = []
        """The training passes since `clear`."""
        self.summed: RowSums | None = None
        """The gradients of these passes, summed by row, where a GPU's kernels have done that."""
        self._stays = device is not None
        self._elsewhere: tuple[Rows, Worker] | None = None

    @property
    def rows(self) -> Rows | None:
        """The rows, if they are outside the module."""
        return None if self._elsewhere is None else self._elsewhere[0]

    def move_out(self, rows: Rows, worker: Worker) -> None:
        """From now on the rows are those of `rows`, which only `worker` may use."""
        self._elsewhere, self._stays = (rows, worker), True

    @property
    def in_kernels(self) -> bool:
        """Whether a GPU's kernels read and update the rows, by int32 ids."""
        return self._elsewhere is None and gpu.usable(self.weight) and len(self.weight) <= torch.iinfo(torch.int32).max

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Set all rows to normal numbers."""
        if self.weight.dtype != torch.bfloat16:
            nn.init.normal_(self.weight, std=std, generator=generator)
            return
        for start, piece in drawn_rows(len(self.weight), self.weight.shape[1], std, generator):  # the same numbers as in fp32, rounded
            self.weight.data[start : start + len(piece)] = piece

    def forward(self, indices: Tensor) -> Tensor:
        """Indices into each head's own table, int64 [..., H] -> memory vectors [..., H r]; bf16 rows are read as fp32.

        Indices in int32 are rows of all heads' tables stacked (`NgramHash.rows_on_gpu`). A GPU's kernels return the vectors in the dtype of
        matrix products.
        """
        assert self._elsewhere is None, "rows outside the module are read through `MemoryLookup.request`"
        rows = indices if indices.dtype == torch.int32 else indices + self.offsets
        if self.in_kernels:
            return self._read(rows.int())
        if not (self.training and torch.is_grad_enabled()):
            return widened(F.embedding(rows, self.weight)).flatten(-2)
        distinct, places = distinct_rows(rows)  # [U], [..., H]
        gathered = memory_ops.gather(self.weight, distinct)
        return self.vectors(distinct, places, widened(self.weight[distinct]) if gathered is None else gathered)

    def _read(self, rows: Tensor) -> Tensor:
        """Rows int32 [..., H] -> memory vectors [..., H r], in training a leaf, on a GPU."""
        from engram.kernels.gpu.gather import gather

        ids = rows.flatten()
        vectors = gather(self.weight.detach(), ids, gpu.product_dtype(self.weight)).view(*rows.shape[:-1], -1)
        if self.training and torch.is_grad_enabled():
            self.touched.append((ids, vectors.requires_grad_()))
            self.summed = None
        return vectors

    def reads(self) -> tuple[Tensor, Tensor] | None:
        """All reads since `clear` that a GPU's kernels have made: row ids int32 [n], and their gradients [n, r]; None if there are none."""
        found = [(ids, leaf.grad) for ids, leaf in self.touched if leaf.grad is not None and ids.dtype == torch.int32 and len(ids)]
        if not found:
            return None
        ids, grads = [one for one, _ in found], [grad.reshape(-1, self.weight.shape[1]) for _, grad in found]
        return (ids[0], grads[0]) if len(found) == 1 else (torch.cat(ids), torch.cat(grads))

    def vectors(self, ids: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """Distinct ids int64 [U], copies of their rows [U, r], and the place of each read among them int64 [..., H] -> [..., H r]."""
        if self.training and torch.is_grad_enabled():
            self.touched.append((ids, rows.requires_grad_()))
        expanded = memory_ops.expand(rows, places)
        return (F.embedding(places, rows) if expanded is None else expanded).flatten(-2)

    def collect(self) -> None:
        """Sum the gradients of a step's passes by row: the gradient norm is the norm of these sums."""
        if len(self.touched) > 1 and not self.in_kernels:
            self.touched[:] = sum_of_passes(self.touched)

    def update(self, change: RowUpdate, state: list[Tensor], step: int) -> None:
        """Update the rows touched since the last `clear` by their gradients, and forget them.

        Args:
            change: the optimiser's rule.
            state: its state for rows in the module; rows elsewhere have their own.
            step: number of the optimiser's step, from 1.
        """
        touched = [(ids, leaf) for ids, leaf in self.touched if leaf.grad is not None]
        self.clear()
        if not touched:
            return
        if self._elsewhere is None:
            change(self.weight, state, *gradients_by_row(touched))
        else:
            rows, worker = self._elsewhere
            worker.tell(partial(_update_elsewhere, rows, touched, change, step))

    def clear(self) -> None:
        """Forget the rows touched; called by the optimiser after its step."""
        self.touched.clear()
        self.summed = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EmbeddingTables":
        if not self._stays:
            return super()._apply(fn, recurse)
        weight = self._parameters.pop("weight")
        try:
            return super()._apply(fn, recurse)
        finally:
            self._parameters["weight"] = weight

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight.is_meta:
            del destination[f"{prefix}weight"]  # it is in a file of its own

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if not self.weight.is_meta:
            super()._load_from_state_dict(state_dict, prefix, *rest)


def _update_elsewhere(rows: Rows, touched: Touched, change: RowUpdate, step: int) -> None:
    ids, grad = gradients_by_row(touched)  # the ids are on the CPU, and the gradients are brought there
    rows.update(ids, grad, change, step)


def host_may_wait(rows: Tensor) -> bool:
    """Whether the host may ask how many ids are distinct: on a GPU it would have to wait for all pending work."""
    return rows.device.type == "cpu"


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Ids int64 [...] -> distinct ids in ascending order int64 [U], and the place of each id among them, int64 [...].

    Where the host may not wait, U is the number of all ids, and the largest id is repeated to the end.
    """
    if host_may_wait(rows):
        found = memory_ops.distinct(rows)
        if found is not None:
            return found
        distinct, inverse = torch.unique(rows, return_inverse=True)
        return distinct, inverse
    ordered, order = rows.flatten().sort()
    places = torch.cat([ordered.new_zeros(1), (ordered[1:] != ordered[:-1]).long()]).cumsum(0)  # [n], increasing by 0 or 1
    inverse = torch.empty_like(order).scatter_(0, order, places)
    distinct = ordered[-1].expand_as(ordered).scatter(0, places, ordered)  # equal places get equal ids
    return distinct, inverse.view_as(rows)


def sum_of_passes(touched: Touched) -> Touched:
    """Merge the rows touched in several passes into one: distinct ids int64 [U], and a leaf [U, r] with the summed gradients."""
    found = [(rows, leaf.grad) for rows, leaf in touched if leaf.grad is not None]
    if len(found) <= 1:
        return [one for one in touched if one[1].grad is not None]
    distinct, inverse = distinct_rows(torch.cat([rows for rows, _ in found]))
    grads = torch.cat([grad for _, grad in found])
    summed = grads.new_zeros(len(distinct), grads.shape[1]).index_add_(0, inverse.to(grads.device), grads)
    return [(distinct, gradient_carrier(summed))]


def gradient_carrier(grads: Tensor) -> Tensor:
    """A leaf whose gradient is `grads` [U, r], for optimisers; its own values are meaningless."""
    leaf = grads.detach()  # shares the memory
    leaf.grad = grads
    return leaf


def gradients_by_row(touched: Touched) -> tuple[Tensor, Tensor]:
    """Distinct rows int64 [U] and their gradients [U, r], summed over all passes. A repeated row has the same gradient each time."""
    parts = [(rows, leaf.grad.to(rows.device)) for rows, leaf in touched if leaf.grad is not None]
    if len(parts) == 1 and host_may_wait(parts[0][0]):
        return parts[0]
    rows, inverse = distinct_rows(torch.cat([rows for rows, _ in parts]))
    grads = torch.cat([grad for _, grad in parts])
    grads = grads.new_zeros(len(rows), grads.shape[1]).index_add_(0, inverse, grads)
    places = torch.arange(len(rows), device=rows.device).minimum(inverse.max())  # of the largest id, where it is repeated
    return rows, grads[places]


def drawn_rows(n_rows: int, row_dim: int, std: float, generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
    """What `nn.init.normal_` would put into a table [n_rows, row_dim] on the CPU, to the bit, as pieces: first row, rows [n, row_dim].

    All pieces but the last are multiples of 16 rows.
    """
    step = max(1, _PIECE // row_dim // _BLOCK) * _BLOCK
    start = 0
    while start < n_rows:
        end = n_rows if n_rows - start < step + _BLOCK else start + step  # no piece below one block
        yield start, torch.empty(end - start, row_dim).normal_(0, std, generator=generator)
        start = end
