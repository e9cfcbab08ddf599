"""One site of a memory in the model: its dense weights."""

import torch
from torch import Tensor, nn

from engram.history import History
from engram.memory.designs.base import Backbone, Memory


class MemorySite(nn.Module):
    """One place where a design adds to the model: its dense weights, as the design declares them.

    Args:
        memory: the design.
        backbone: the surrounding model.
    """

    def __init__(self, memory: Memory, backbone: Backbone) -> None:
        super().__init__()
        self.memory, self.backbone = memory, backbone
        self.declared = self.memory.weights(self.backbone)
        self.matrices = frozenset(name for name, weight in self.declared.items() if weight.matrix)
        for name, weight in self.declared.items():
            self.register_parameter(name, nn.Parameter(torch.full(weight.shape, weight.centre)))

    def forward(self, vectors: Tensor, stream: Tensor, past: History) -> Tensor:
        """What this site adds to the model (`Memory.add`)."""
        return self.memory.add(self._weights(), vectors, stream, self.backbone, past)

    def gates(self, vectors: Tensor, stream: Tensor) -> Tensor | None:
        """Its gates for the same inputs, [B, T, M]; None if the design has no gate (`Memory.gates`)."""
        return self.memory.gates(self._weights(), vectors, stream, self.backbone)

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._parameters.items() if weight is not None}
