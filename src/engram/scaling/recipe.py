"""How each size of the ladder is trained, each rule with its source: sequence, batch, learning rate, optimiser.

"Paper" is the Engram paper, section 4.1. A sweep file may override every value. Rules that do not depend on the size (weight decay,
the tables' rate, the schedule) are the defaults of `engram.config.training`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    rated_tokens: Mapping[str, int] | None = None
    """Tokens per step, by size name, for which these rates hold: with more, the rate grows with the square root of the ratio, as Adam's
    noise asks for (Malladi et al., 2022, arXiv 2205.10287). None: they hold for the recipe's own."""

    def learning_rate(self, size: Size, optimizer: str) -> float:
        """Peak rate for a size; an unknown optimiser kind is a UserError that lists the kinds."""
        if optimizer not in self.rate_at_width:
            raise UserError(f"optimizer kind '{optimizer}' is unknown; there are {', '.join(self.rate_at_width)}")
        near = self.rate_at_width[optimizer]
        exponent = math.log(near / self.far_rate) / math.log(self.far_width / self.rate_width)
        return near * (self.rate_width / size.width) ** exponent * self._batch_factor(size.name)

    def _batch_factor(self, name: str) -> float:
        """What the batch of a size multiplies its rate by."""
        if self.rated_tokens is None or name not in self.rated_tokens:
            return 1.0
        seq_len, batch_size = self.sequence_and_batch[name]
        return math.sqrt(seq_len * batch_size / self.rated_tokens[name])

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

GPU_MUON_2026 = replace(
    PAPER_MUON_2026,
    name="gpu-muon-2026",
    # A GPU is idle in steps of 2,048 tokens. How large they may be is a matter of the budget: DeepSeek LLM (arXiv 2401.02954, 3.1) finds
    # the best batch at 0.292 C^0.3271 tokens, flat around it. That is 5 k at the FLOPs of 1m with 200 tokens for each active parameter,
    # 8 k for 3m with 60, 23 k for 10m and 46 k for 30m with 120, 53 k for 100m with 20; powers of two near these. Larger sizes as above.
    sequence_and_batch=MappingProxyType(
        dict(PAPER_MUON_2026.sequence_and_batch)
        | {"1m": (64, 64), "3m": (128, 64), "10m": (128, 256), "30m": (256, 128), "100m": (512, 64)}
    ),
    rated_tokens=MappingProxyType({name: length * batch for name, (length, batch) in PAPER_MUON_2026.sequence_and_batch.items()}),
)
RECIPES = MappingProxyType({recipe.name: recipe for recipe in (PAPER_MUON_2026, GPU_MUON_2026)})
"""By the name that a sweep file may give."""
