"""`engram`: the memory of the paper (2.2 - 2.4)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from engram.memory.designs.base import NO_ROWS, Backbone, LayeredMemory, Weight, nearest_multiple

if TYPE_CHECKING:
    from torch import Tensor

    from engram.history import History

CONV_EPS = 1e-5
"""Epsilon of the convolution's norm (public module)."""


def fusion_weights(model: Backbone, memory_dim: int, branches: int, bias: bool, conv_kernel: int, gate: bool = True) -> dict[str, Weight]:
    """Weights of the context-aware gate, the value and the convolution (paper, 2.3, 2.4).

    There is one key projection and one pair of norms per branch, and one value projection for all. The convolution starts at zero.
    """
    d, spread = model.width, 1 / math.sqrt(memory_dim)
    weights = {"value": Weight((d, memory_dim), spread * model.residual_scale, matrix=True)}
    if gate:
        weights |= {
            "key": Weight((branches, d, memory_dim), spread, matrix=True),
            "key_norm": Weight((branches, d), 0.0, centre=1.0),
            "query_norm": Weight((branches, d), 0.0, centre=1.0),
        }
    if bias:
        weights |= {"value_bias": Weight((d,), 0.0)} | ({"key_bias": Weight((branches, d), 0.0)} if gate else {})
    if conv_kernel:
        weights |= {"conv_norm": Weight((branches, d), 0.0, centre=1.0), "conv": Weight((branches, d, conv_kernel), 0.0)}
    return weights


class Engram(LayeredMemory):
    """Context-gated memory, added to the residual branches before attention."""

    site = "residual"

    design: Literal["engram"] = "engram"
    gate: Literal["plain", "signed_sqrt", "none"] = "plain"
    """`plain` is the paper's equation, `signed_sqrt` the public module's; `none` adds every value as it is (paper, 6.2)."""
    projection_bias: bool = False
    """Bias on the key and value projections, as in the public module; the paper's equation has none."""
    conv_kernel: int = Field(default=4, ge=0)
    """Taps of the short causal convolution; 0 leaves the convolution out. Its dilation is N."""
    branch_gates: bool = True
    """One gate per residual branch. False: a single gate on the mixture of the branches, inside a hyper-connection (paper, 6.2)."""

    @classmethod
    def for_shape(cls, width: int, n_layers: int) -> Self:
        # The paper's layers 2 and 15 of 30: early, and halfway up where there is enough depth.
        layers = (1, n_layers // 2) if n_layers >= 6 else (min(1, n_layers - 1),)
        return cls(layers=layers, table_sizes=(NO_ROWS, NO_ROWS), n_heads=4, memory_dim=nearest_multiple(width, 8))

    @property
    def branchwise(self) -> bool:
        return self.branch_gates

    def check(self, model: Backbone) -> None:
        super().check(model)
        if model.branches == 1 and not self.branch_gates:
            raise ValueError("memory.branch_gates is false; it has a meaning only where branches is more than 1")

    def weights(self, model: Backbone) -> dict[str, Weight]:
        branches = model.branches if self.branch_gates else 1
        return fusion_weights(model, self.memory_dim, branches, self.projection_bias, self.conv_kernel, self.gate != "none")

    def gates(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone) -> "Tensor | None":
        from engram.memory.fusion import gate_keys, gates

        return None if self.gate == "none" else gates(weights, gate_keys(weights, vectors), stream, self.gate, model.norm_eps)

    def add(self, weights: Mapping[str, "Tensor"], vectors: "Tensor", stream: "Tensor", model: Backbone, past: "History") -> "Tensor":
        from engram.memory.fusion import convolved, gated_values, ungated_values

        if self.gate == "none":
            update = ungated_values(weights, vectors, stream.shape[2])
        else:
            update = gated_values(weights, vectors, stream, self.gate, model.norm_eps)
        return convolved(weights, update, self.max_ngram, CONV_EPS, past) if self.conv_kernel else update
