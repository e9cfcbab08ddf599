"""Memory tables whose rows are spread over the processes of a trial.

Row i of a set of tables belongs to process i % count. Hashing leaves no order among the rows of a head, and heads are stacked one after
another, so every process has its share of every head: of its rows and, up to chance, of a batch's reads. (Contiguous blocks of rows would
give one process the small heads of the 2-grams, whose few frequent rows every batch asks for.)

A pass of the model sends the distinct ids of a process's batch to their owners and gets the rows back; a step of the optimiser sends the
gradients of these rows, which their owners sum. Both cost in proportion to the batch, never to the table.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from engram.kernels import memory_ops
from engram.memory.placement.rows import widened
from engram.memory.tables import EmbeddingTables, drawn_rows, gradient_carrier, sum_of_passes
from engram.processes import Processes

_PIECE = 1 << 22
"""About how many numbers of a table are gathered at once."""


class ShardedTables(EmbeddingTables):
    """This process's rows of one layer's tables; `weight` [about rows / count, r] holds rows rank, rank + count, ...

    Every process must look up and step as often as the others. `touched` holds ids of the whole table before `collect`, and places in
    `weight` after it, so that the optimiser and its moments deal with this process's rows only.

    Args:
        head_sizes: rows of each head's table over all processes, H numbers.
        row_dim: numbers in a row (r).
        processes: the processes of the trial.
        dtype: of the stored rows; they are sent in fp32.
    """

    def __init__(self, head_sizes: list[int], row_dim: int, processes: Processes, dtype: torch.dtype | None = None) -> None:
        super().__init__(head_sizes, row_dim, kept=len(range(processes.rank, sum(head_sizes), processes.count)), dtype=dtype)
        self.processes = processes
        self.n_rows = sum(head_sizes)

    @property
    def in_kernels(self) -> bool:
        """False: they are read and updated through the other processes."""
        return False

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Draw the rows that the whole table would have, without ever holding all of it."""
        at = 0
        for start, piece in drawn_rows(self.n_rows, self.weight.shape[1], std, generator):
            mine = piece[(self.processes.rank - start) % self.processes.count :: self.processes.count]
            self.weight.data[at : at + len(mine)] = mine
            at += len(mine)

    def forward(self, indices: Tensor) -> Tensor:
        """Indices into each head's own table, int64 [..., H] -> memory vectors [..., H r]; bf16 rows are read as fp32."""
        rows = indices + self.offsets
        distinct, places = memory_ops.distinct(rows) or torch.unique(rows, return_inverse=True)  # [U], [..., H]
        leaf = self._fetch(distinct)  # [U, r]
        if self.training and torch.is_grad_enabled():
            leaf.requires_grad_()
            self.touched.append((distinct, leaf))
        out = memory_ops.expand(leaf, places)
        return (F.embedding(places, leaf) if out is None else out).flatten(-2)

    def _fetch(self, ids: Tensor) -> Tensor:
        """Rows from the shards of all processes: distinct ids int64 [U] -> [U, r], without gradient."""
        order, counts = self._by_owner(ids)
        asked = self.processes.exchange_counts(counts)
        wanted = self.processes.exchange(ids[order] // self.processes.count, counts, asked)
        found = self.processes.exchange(widened(self.weight.detach()[wanted]), asked, counts)
        return torch.empty_like(found).index_copy_(0, order, found)

    def collect(self) -> None:
        """Send the gradients of rows to their owners, which sum them in the order of the processes."""
        self.touched[:] = sum_of_passes(self.touched)
        if not self.touched:
            return
        ((ids, leaf),) = self.touched
        assert leaf.grad is not None
        order, counts = self._by_owner(ids)
        coming = self.processes.exchange_counts(counts)
        rows = self.processes.exchange(ids[order] // self.processes.count, counts, coming)
        grads = self.processes.exchange(leaf.grad[order], counts, coming)
        distinct, places = torch.unique(rows, return_inverse=True)
        summed = grads.new_zeros(len(distinct), grads.shape[1]).index_add_(0, places, grads)
        self.touched[:] = [(distinct, gradient_carrier(summed))]

    def _by_owner(self, ids: Tensor) -> tuple[Tensor, list[int]]:
        """The order int64 [U] that sorts ids [U] by owner, and how many ids each owner has."""
        owners = ids % self.processes.count
        return owners.argsort(stable=True), torch.bincount(owners, minlength=self.processes.count).tolist()

    def whole(self) -> Iterator[Tensor]:
        """The rows of all processes in the order of their ids, in pieces [n, r], for the first process; the others yield nothing."""
        each = -(-self.n_rows // self.processes.count)  # rows of the largest shard
        step = max(1, _PIECE // self.weight.shape[1] // self.processes.count)
        for start in range(0, each, step):
            part = self.weight.detach()[start : start + step]
            short = min(step, each - start) - len(part)  # the largest shards have one row more
            found = self.processes.gather(F.pad(widened(part), (0, 0, 0, short)))
            if found is not None:
                yield torch.stack(found, dim=1).flatten(0, 1)[: self.n_rows - start * self.processes.count].to(part.dtype)
