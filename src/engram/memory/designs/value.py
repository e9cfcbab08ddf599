"""`value`: hashed 2- and 3-gram rows added to the attention values of chosen layers (karpathy/nanochat, pull request 854).

One set of tables serves all layers, each of which reads its own slice of a row; there are two hashes per order; the memory vector is gated
by the first 12 channels of attention's input and projected to the values.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from engram.memory.designs.base import NO_ROWS, Backbone, LayeredMemory, Weight, nearest_multiple

if TYPE_CHECKING:
    from torch import Tensor

    from engram.history import History

GATE_CHANNELS = 12
_LAYERS = (3 / 24, 7 / 24, 11 / 24, 15 / 24)
"""The four layers of the pull request's 24."""


class Value(LayeredMemory):
    """Memory in the values: attention decides where it goes."""

    site = "values"

    design: Literal["value"] = "value"

    @classmethod
    def for_shape(cls, width: int, n_layers: int) -> Self:
        layers = tuple(sorted({int(share * n_layers) for share in _LAYERS}))
        # The pull request takes width / 12 for a layer; of a small width that leaves rows of one or two numbers.
        return cls(layers=layers, table_sizes=(NO_ROWS, NO_ROWS), n_heads=2, memory_dim=nearest_multiple(max(width / 12, 32), 4))

    @property
    def table_layers(self) -> tuple[int, ...]:
        return (0,)

    @property
    def sites_of_a_row(self) -> int:
        return len(self.layers)

    def weights(self, model: Backbone) -> dict[str, Weight]:
        return {
            "gate": Weight((1, min(GATE_CHANNELS, model.width)), 0.0),
            "out": Weight((model.values_width, self.memory_dim), 1 / math.sqrt(self.memory_dim), matrix=True),
        }

    def gates(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone) -> "Tensor":
        """One for all branches, [B, T, 1], between 0 and 2; starts at 1."""
        channels = weights["gate"].shape[1]
        return 2 * (stream[..., :channels] * weights["gate"]).sum(-1, keepdim=True).sigmoid()

    def add(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone, past: "History") -> "Tensor":
        return (self.gates(weights, vectors, stream, model) * vectors) @ weights["out"].t()
