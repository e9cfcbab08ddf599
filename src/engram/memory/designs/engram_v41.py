"""`engram-v4.1`: the memory as DeepSeek-V4.1-Flash ships it.

Source: the released configuration (`engram_layer_ids` 1 and 14 of 40, `engram_max_ngram_size` 4, `engram_n_heads` 8, rows of 256 at width
5120) and the published inference code: one projection to M keys and a value, without bias; a signed-square-root gate; no convolution.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from engram.memory.designs.base import NO_ROWS, Backbone, LayeredMemory, Weight, nearest_multiple
from engram.memory.designs.engram import fusion_weights

if TYPE_CHECKING:
    from torch import Tensor

    from engram.history import History

_ORDERS, _HEADS = 3, 8
_SECOND_LAYER = 14 / 40
_MEMORY_DIM = _ORDERS * _HEADS * 256 / 5120


class EngramV41(LayeredMemory):
    """Orders 2..4 with a gate per branch, added to the residual branches before attention."""

    site = "residual"

    design: Literal["engram-v4.1"] = "engram-v4.1"

    @classmethod
    def for_shape(cls, width: int, n_layers: int) -> Self:
        first = min(1, n_layers - 1)
        second = round(_SECOND_LAYER * n_layers)
        return cls(
            layers=(first, second) if second > first + 1 else (first,),
            table_sizes=(NO_ROWS,) * _ORDERS,
            n_heads=_HEADS,
            memory_dim=nearest_multiple(_MEMORY_DIM * width, _ORDERS * _HEADS),
        )

    def weights(self, model: Backbone) -> dict[str, Weight]:
        return fusion_weights(model, self.memory_dim, model.branches, bias=False, conv_kernel=0)

    def gates(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone) -> "Tensor":
        from engram.memory.fusion import gate_keys, gates

        return gates(weights, gate_keys(weights, vectors), stream, "signed_sqrt", model.norm_eps)

    def add(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone, past: "History") -> "Tensor":
        from engram.memory.fusion import gated_values

        return gated_values(weights, vectors, stream, "signed_sqrt", model.norm_eps)
