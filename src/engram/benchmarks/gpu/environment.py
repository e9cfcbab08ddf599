"""What all measurements of a GPU share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engram.benchmarks.shapes import Precision, Setup, named_size
from engram.corpus.dataset import Corpus
from engram.scaling.recipe import DEFAULT_RECIPE
from engram.training.machine import resolve_device, settle_process

RHO = 0.75
"""Of the sparse models."""
STEP_TOKENS = 32_768
"""Tokens a step, unless a measurement says otherwise."""
_REHEARSAL_SIZE, _REHEARSAL_TOKENS = "1m", 256

Tell = Callable[..., None]
"""Called with values by name: numbers, or mappings and lists of them."""


@dataclass(frozen=True)
class Environment:
    """Where and for how long to measure."""

    device_name: str
    corpus_folder: Path
    seconds: float
    """For each case."""
    rounds: int

    @property
    def device(self) -> torch.device:
        return resolve_device(self.device_name)

    @property
    def rehearsal(self) -> bool:
        """On a CPU every size is 1m with a few tokens a step: it shows that the measurements work, and measures nothing."""
        return self.device.type == "cpu"

    def setup(self, size: str, step_tokens: int | None = STEP_TOKENS, precision: Precision = "auto", optimizer: str | None = None) -> Setup:
        """A size on the device, in a process that is settled for training there.

        Args:
            size: of the ladder.
            step_tokens: tokens a step; None: the recipe's.
            precision: of its products.
            optimizer: its kind; None: the recipe's.
        """
        settle_process(1, self.device)
        if self.rehearsal:
            size, step_tokens = _REHEARSAL_SIZE, _REHEARSAL_TOKENS
        corpus = Corpus.open(self.corpus_folder)
        return Setup(named_size(size), optimizer or DEFAULT_RECIPE.optimizer, corpus, self.device, precision, step_tokens)


def numbers(value: Any) -> dict[str, float]:
    """A `Measured` as plain numbers."""
    return {"median": value.median, "low": value.low, "high": value.high}
