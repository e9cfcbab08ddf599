"""How each size of the ladder is trained, each rule with its source: sequence, batch, learning rate, decay.

"Paper" is the Engram paper, section 4.1. A sweep file may override every value.
"""

import math
from typing import Any

from engram.errors import UserError
from engram.ladder import Size

DEFAULT_OPTIMIZER = "muon"
"""As in the paper; 0.2 nats better than AdamW at size 1m, both at their best rate (docs/LOG.md)."""

SEQUENCE_AND_BATCH: dict[str, tuple[int, int]] = {
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
"""Tokens in a sequence (T) and sequences in a step (B) by size name. Our choice: small sizes take short steps, so that a budget
of minutes on a laptop core buys hundreds of them; from 1b on the step has 0.26 to 1 M tokens, as is usual at that scale."""

RATE_WIDTH = 96
"""Width at which the peak rates below hold."""
PAPER_RATE, PAPER_WIDTH = 4e-4, 2560
"""The peak rate that the paper gives, and the width of its models."""
RATE_AT_WIDTH: dict[str, float] = {"adamw": 6e-3, "muon": 1.2e-2}
"""Peak rate by optimiser kind at `RATE_WIDTH`: our own runs (docs/LOG.md: three rates of AdamW and four of Muon at size 1m)."""


TABLE_LR_MULTIPLIER = 5.0
"""Rate of the memory tables as a multiple (paper)."""
WEIGHT_DECAY = 0.1
"""On matrices only (paper)."""
WARMUP_FRACTION = 0.03
"""Our choice: a fixed number of steps does not suit budgets that differ by orders of magnitude."""
DECAY_FRACTION = 0.5
"""Share of the steps over which the rate of the default schedule (wsd) falls. Our choice; the paper's own is step decay."""


def sequence_and_batch(size: Size) -> tuple[int, int]:
    """Tokens in a sequence and sequences in a step; KeyError for a size that is not of the ladder."""
    return SEQUENCE_AND_BATCH[size.name]


def learning_rate(size: Size, optimizer: str) -> float:
    """Peak rate: the power law in width through our own rate and the paper's; UserError lists the optimiser kinds."""
    if optimizer not in RATE_AT_WIDTH:
        raise UserError(f"optimizer kind '{optimizer}' is unknown; there are {', '.join(RATE_AT_WIDTH)}")
    ours = RATE_AT_WIDTH[optimizer]
    exponent = math.log(ours / PAPER_RATE) / math.log(PAPER_WIDTH / RATE_WIDTH)
    return ours * (RATE_WIDTH / size.width) ** exponent


def train_defaults(size: Size, optimizer: str = DEFAULT_OPTIMIZER) -> dict[str, Any]:
    """Fields of TrainConfig that depend on the size or the optimiser; the other rules here are its defaults.

    `optimizer` holds only its kind, so that overrides of another kind can be laid over.
    """
    seq_len, batch_size = sequence_and_batch(size)
    rate = learning_rate(size, optimizer)
    return {"seq_len": seq_len, "batch_size": batch_size, "learning_rate": rate, "optimizer": {"kind": optimizer}}
