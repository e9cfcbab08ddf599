"""Numbers that go to a GPU before every step, always to the same place, without anybody waiting."""

import numpy as np
import torch
from torch import Tensor

_DEPTH = 8
"""Steps that the host may be ahead of the device."""


class Upload:
    """A tensor on a GPU that gets new contents from pinned memory.

    A slot of pinned memory is written again only when its last copy is done: this is also what keeps the host from running ahead for ever.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
        device: a GPU.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.on_device = torch.zeros(shape, dtype=dtype, device=device)
        self._slots = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(_DEPTH)]
        self._copied: list[torch.cuda.Event | None] = [None] * _DEPTH
        self._next = 0

    def put(self, values: np.ndarray) -> Tensor:
        """Copy `values` to the device, in the current stream; returns the tensor there."""
        slot, copied = self._slots[self._next], self._copied[self._next]
        if copied is not None:
            copied.synchronize()
        slot.numpy()[...] = values
        self.on_device.copy_(slot, non_blocking=True)
        self._copied[self._next] = done = copied or torch.cuda.Event()
        done.record()
        self._next = (self._next + 1) % _DEPTH
        return self.on_device
