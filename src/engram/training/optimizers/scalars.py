"""What an optimiser step needs to know about its place in the trial: its number, its rates, and Adam's bias corrections."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engram.kernels.gpu.step_numbers import RATE, ROUNDING_KEY
from engram.training.optimizers.rounding import rounding_key


@dataclass(frozen=True)
class StepScalars:
    """The numbers of one step.

    On a GPU the kernels read them from `on_device`, which is filled before every step and always lies at the same place: a captured step
    then goes on with new numbers. Everything else uses the Python numbers.
    """

    step: int
    """Number of the optimiser's step, from 1."""
    rate: float
    """Learning rate of dense weights."""
    table_rate: float
    """Learning rate of table rows."""
    corrections: tuple[float, float]
    """1 - beta^step for both moments of the row-wise Adam."""
    on_device: Tensor | None = None
    """fp32 [COUNT] on a GPU."""

    @property
    def dense_rate(self) -> float | Tensor:
        """`rate` for operations of PyTorch: a number, or fp32 [] on a GPU."""
        return self.rate if self.on_device is None else self.on_device[RATE]

    def packed(self) -> np.ndarray:
        """What `on_device` has to hold for this step: fp32 [COUNT]."""
        packed = np.array([self.rate, self.table_rate, *self.corrections, 0.0], dtype=np.float32)
        packed.view(np.int32)[ROUNDING_KEY] = rounding_key(self.step)
        return packed

    def for_kernels(self, device: torch.device) -> Tensor:
        """`on_device`, or a copy that serves this step only."""
        return torch.from_numpy(self.packed()).to(device) if self.on_device is None else self.on_device


def step_scalars(step: int, rate: float, table_rate: float, betas: tuple[float, float], on_device: Tensor | None = None) -> StepScalars:
    """The numbers of a step; `betas` are the decay of both moments of the row-wise Adam."""
    return StepScalars(step, rate, table_rate, (1 - betas[0] ** step, 1 - betas[1] ** step), on_device)
