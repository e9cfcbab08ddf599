"""`over-encoding`: hashed N-gram embeddings averaged into the vocabulary embedding (Huang et al., 2025, arXiv 2501.16975).

The token's embedding and the projected rows of all orders and heads have equal weight in the average. Its constant factor
1 / (1 + (N - 1) K) is left out: whatever reads the residual stream normalises it, and the factor would only shrink the initial values.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from engram.memory.designs.base import NO_ROWS, Backbone, Memory, Weight, nearest_multiple

if TYPE_CHECKING:
    from torch import Tensor

    from engram.history import History


class OverEncoding(Memory):
    """A projection of the rows, added to the embedding without a gate."""

    site = "embedding"

    design: Literal["over-encoding"] = "over-encoding"

    @classmethod
    def for_shape(cls, width: int, n_layers: int) -> Self:
        return cls(table_sizes=(NO_ROWS, NO_ROWS), n_heads=4, memory_dim=nearest_multiple(width, 8))

    def weights(self, model: Backbone) -> dict[str, Weight]:
        return {"out": Weight((model.width, self.memory_dim), 1 / math.sqrt(self.memory_dim), matrix=True)}

    def add(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone, past: "History") -> "Tensor":
        return vectors @ weights["out"].t()  # the blocks of `out` are the projections of the heads: their sum is one product
