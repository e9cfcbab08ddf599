"""Table rows: looked up by id, with gradients by row.

No step costs anything proportional to the table: a forward pass copies the distinct rows of the batch into a small
leaf tensor, the backward pass fills that leaf's gradient, and the optimiser writes back the same rows.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.kernels import memory_ops


class EmbeddingTables(nn.Module):
    """All heads' tables of one layer, stacked in one matrix.

    Args:
        head_sizes: rows of each head's table, H numbers.
        row_dim: numbers in a row (r).
    """

    offsets: Tensor
    """int64 [H]: first row of each head's table"""

    def __init__(self, head_sizes: list[int], row_dim: int) -> None:
        super().__init__()
        sizes = torch.tensor(head_sizes)
        self.weight = nn.Parameter(torch.empty(sum(head_sizes), row_dim), requires_grad=False)  # updated by row, never through .grad
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
        self.touched: list[tuple[Tensor, Tensor]] = []
        """(row ids int64 [U], leaf copy of the rows [U, r]) of each training pass since `clear`; see `distinct_rows` for repeated ids"""

    def forward(self, indices: Tensor) -> Tensor:
        """Indices into each head's own table, int64 [..., H] -> memory vectors [..., H r] in the dtype of the table."""
        rows = indices + self.offsets
        if not (self.training and torch.is_grad_enabled()):
            return F.embedding(rows, self.weight).flatten(-2)
        done = memory_ops.lookup_rows(self.weight, rows)
        if done is not None:
            distinct, leaf, out = done
            self.touched.append((distinct, leaf))
            return out.flatten(-2)
        distinct, inverse = distinct_rows(rows)  # [U], [..., H]
        leaf = self.weight[distinct].requires_grad_()  # [U, r]
        self.touched.append((distinct, leaf))
        return F.embedding(inverse, leaf).flatten(-2)

    def clear(self) -> None:
        """Forget the rows touched; called by the optimiser after its step."""
        self.touched.clear()


def host_may_wait(rows: Tensor) -> bool:
    """Whether the host may ask how many ids are distinct: on a GPU it would wait for all the work before."""
    return rows.device.type == "cpu"


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct ids in rising order int64 [U], and the place of each id among them, of the shape of `rows` (int64).

    Where the host may not wait, U is the number of all ids and the largest id is repeated to the end.
    """
    if host_may_wait(rows):
        distinct, inverse = torch.unique(rows, return_inverse=True)
        return distinct, inverse
    ordered, order = rows.flatten().sort()
    places = torch.cat([ordered.new_zeros(1), (ordered[1:] != ordered[:-1]).long()]).cumsum(0)  # [n], rising by 0 or 1
    inverse = torch.empty_like(order).scatter_(0, order, places)
    distinct = ordered[-1].expand_as(ordered).scatter(0, places, ordered)  # equal places get equal ids
    return distinct, inverse.view_as(rows)
