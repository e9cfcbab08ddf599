"""How each size of the ladder is trained, each rule with its source: sequence, batch, learning rate, optimiser.

"Paper" is the Engram paper, section 4.1. A sweep file may override every value. Rules that do not depend on the size (weight decay,
the tables' rate, the schedule) are the defaults of `engram.config.training`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from engram.errors import UserError
from engram.scaling.ladder import Size


@dataclass(frozen=True)
class Recipe:
    """Training defaults for every size of the ladder."""

    name: str
    optimizer: str
    """Kind of the default optimiser."""
    sequence_and_batch: Mapping[str, tuple[int, int]]
    """Tokens per sequence (T) and sequences per step (B), by size name."""
    rate_at_width: Mapping[str, float]
    """Peak rate at `rate_width`, by optimiser kind."""
    rate_width: int
    far_rate: float
    """Peak rate of either optimiser at `far_width`; the rate is a power law in width through both."""
    far_width: int

    def learning_rate(self, size: Size, optimizer: str) -> float:
        """Peak rate for a size; an unknown optimiser kind is a UserError that lists the kinds."""
        if optimizer not in self.rate_at_width:
            raise UserError(f"optimizer kind '{optimizer}' is unknown; there are {', '.join(self.rate_at_width)}")
        near = self.rate_at_width[optimizer]
        exponent = math.log(near / self.far_rate) / math.log(self.far_width / self.rate_width)
        return near * (self.rate_width / size.width) ** exponent

    def train_defaults(self, size: Size, optimizer: str | None = None) -> dict[str, Any]:
        """The fields of TrainConfig that depend on the size or the optimiser; KeyError for a size that is not on the ladder.

        Args:
            size: of the ladder.
            optimizer: its kind; None: the recipe's. The result names only the kind, so that overrides of another kind can be merged in.
        """
        kind = optimizer or self.optimizer
        seq_len, batch_size = self.sequence_and_batch[size.name]
        return {"seq_len": seq_len, "batch_size": batch_size, "learning_rate": self.learning_rate(size, kind), "optimizer": {"kind": kind}}


PAPER_MUON_2026 = Recipe(
    name="paper-muon-2026",
    # As in the paper; 0.2 nats better than AdamW at size 1m, both at their best rate (docs/LOG.md).
    optimizer="muon",
    # Our choice: small sizes take short steps, so that a budget of minutes on a laptop core buys hundreds of them; from 1b on
    # the step has 0.26 to 1 M tokens, as is usual at that scale.
    sequence_and_batch=MappingProxyType(
        {
            "1m": (64, 32),
            "3m": (128, 16),
            "10m": (128, 32),
            "30m": (256, 32),
            "100m": (512, 64),
            "300m": (1024, 128),
            "1b": (2048, 128),
            "3b": (2048, 256),
            "6b": (4096, 256),
        }
    ),
    # Our own runs (docs/LOG.md: three rates of AdamW and four of Muon at size 1m).
    rate_at_width=MappingProxyType({"adamw": 6e-3, "muon": 1.2e-2}),
    rate_width=96,
    # The peak rate that the paper gives, and the width of its models.
    far_rate=4e-4,
    far_width=2560,
)
DEFAULT_RECIPE = PAPER_MUON_2026
