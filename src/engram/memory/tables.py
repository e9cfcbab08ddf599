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
        """(row ids int64 [U], leaf copy of the rows [U, r]) of each training pass since `clear`"""

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
        unique, inverse = torch.unique(rows, return_inverse=True)  # [U], [..., H]
        leaf = self.weight[unique].requires_grad_()  # [U, r]
        self.touched.append((unique, leaf))
        return F.embedding(inverse, leaf).flatten(-2)

    def clear(self) -> None:
        """Forget the rows touched; called by the optimiser after its step."""
        self.touched.clear()
