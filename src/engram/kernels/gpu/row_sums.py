"""What a GPU's kernels know of the gradients of table rows."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass
class RowSums:
    """The gradients of one set of tables in a step. Positions are those of all its reads, sorted by row; equal rows form a segment."""

    keys: Tensor
    """Row ids of several sets of tables in ascending order, int32."""
    start: int
    """Where this set begins among them."""
    base: int
    """What was added to its ids to keep the sets apart."""
    sums: Tensor
    """fp32 [n, r]: at the first position of every segment, the summed gradient of its row; elsewhere anything."""
    norms: Tensor
    """fp32 [...]: numbers that have the norm of all gradients of this set."""
    norm: Tensor
    """Norm of all gradients of the step, fp32 [...], of which the first number counts."""
    limit: float = math.inf
    """The update scales the gradients down so that the step's norm is not above it."""

    def clip(self, norm: Tensor, limit: float) -> None:
        """Have the update scale the gradients like those of a step with this norm, fp32 []."""
        self.norm, self.limit = norm, limit
