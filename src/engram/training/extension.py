"""Continued training on longer sequences with YaRN (paper, 5): its config. `Trainer` trains it, starting from the source's weights."""

from typing import Any

from engram.config.model import ModelConfig, YarnConfig
from engram.config.training import TrainConfig, WSDSchedule
from engram.config.trial import TrialConfig
from engram.errors import FieldError
from engram.scaling.accounting import train_flops_per_token

TOKENS_SHARE = 30 / 262
"""Default length as a share of the source's tokens: 30 B after 262 B in the paper (quoted from memory)."""
RATE_SHARE = 0.1
"""Default peak rate as a share of the source's: the rate at which the paper's step decay ends (4.1: two drops by 0.316)."""


def extension(source: TrialConfig, length: int, tokens: float | None = None, rate: float | None = None) -> TrialConfig:
    """The trial that continues `source` with sequences of `length` tokens.

    Model, optimiser, seed and validation text are the source's. YaRN's scale is `length` over the length before any extension. A step has
    about as many tokens as before, in fewer sequences; the rate is warmed up, held constant, then falls to 0.

    Args:
        source: a finished trial, which may be an extension itself.
        length: tokens per sequence.
        tokens: training tokens, rounded to whole steps; None: `TOKENS_SHARE` of the source's.
        rate: peak learning rate of the dense weights; None: `RATE_SHARE` of the source's.

    Raises FieldError when `length` is not longer than the source's sequences, or a number is not positive.
    """
    before = source.train
    if length <= before.seq_len:
        raise FieldError("length", f"is {length}; it must be more than the {before.seq_len} tokens that trial {source.id} was trained on")
    for name, value in (("tokens", tokens), ("rate", rate)):
        if value is not None and not 0 < value < float("inf"):  # NaN too
            raise FieldError(name, f"is {value:g}; it must be more than 0")
    batch_size = max(1, round(before.tokens_per_step / length))
    wanted = before.tokens * TOKENS_SHARE if tokens is None else tokens
    changes: dict[str, Any] = {
        "seq_len": length,
        "batch_size": batch_size,
        "steps": max(1, round(wanted / (batch_size * length))),
        "learning_rate": before.learning_rate * RATE_SHARE if rate is None else rate,
        "schedule": WSDSchedule(),
    }
    model, train = _stretched(source.model, before.seq_len, length), TrainConfig.model_validate({**dict(before), **changes})
    return source.model_copy(
        update={
            "model": model,
            "train": train,
            "budget_flops": float(train_flops_per_token(model) * train.tokens),
            "continues": source.id,
        }
    )


def _stretched(model: ModelConfig, trained_length: int, length: int) -> ModelConfig:
    """`model` with YaRN for sequences of `length`, counted from the length before the first extension."""
    rope = model.attention.rope
    old = rope.yarn or YarnConfig(original_length=trained_length, scale=1)
    yarn = YarnConfig.model_validate({**dict(old), "scale": max(old.scale, length / old.original_length)})
    attention = model.attention.model_copy(update={"rope": rope.model_copy(update={"yarn": yarn})})
    return model.model_copy(update={"attention": attention})
