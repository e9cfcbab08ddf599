"""How a model is trained: steps, optimiser, schedule. All of it goes into a trial's id."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engram.frozen import FrozenConfig


class AdamWConfig(FrozenConfig):
    """AdamW for all dense weights."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)


class MuonConfig(FrozenConfig):
    """Muon for matrices (paper, 4.1); AdamW for the embedding, the head, norms and everything else that is not a matrix.

    Updates are scaled to the size of AdamW's (0.2 sqrt(max(rows, columns)); Liu et al., 2025, arXiv 2502.16982), so that both can share
    one learning rate.
    """

    kind: Literal["muon"] = "muon"
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Nesterov momentum of the matrices."""
    iterations: int = Field(default=5, ge=1, le=20)
    """Newton-Schulz iterations."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW of the other weights, and row-wise Adam of the tables."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)


OptimizerConfig = Annotated[AdamWConfig | MuonConfig, Field(discriminator="kind")]


class WarmupSchedule(FrozenConfig):
    """What all schedules share."""

    warmup_fraction: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps over which the rate rises linearly from 0. Our choice: no fixed number of steps suits budgets that differ by
    orders of magnitude."""


class WSDSchedule(WarmupSchedule):
    """Warm-up, stable, linear decay (Hu et al., 2024, arXiv 2404.06395)."""

    kind: Literal["wsd"] = "wsd"
    decay_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps at the end over which the rate falls. Our choice; the paper's own schedule is step decay (`StepSchedule`)."""
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Rate at the end as a share of the peak."""


class CosineSchedule(WarmupSchedule):
    """Warm-up, then half a cosine down to the end."""

    kind: Literal["cosine"] = "cosine"
    final_fraction: float = Field(default=0.1, ge=0, le=1)
    """Rate at the end as a share of the peak."""


class StepSchedule(WarmupSchedule):
    """Warm-up, then constant except for sudden drops (the paper's step decay, 4.1; fractions and factor as in DeepSeek LLM, 2401.02954)."""

    kind: Literal["step"] = "step"
    drops: tuple[float, ...] = (0.8, 0.9)
    """Shares of the steps after which the rate drops."""
    factor: float = Field(default=0.316, gt=0, le=1)
    """What each drop multiplies the rate by."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.drops) != sorted(set(self.drops)) or not all(0 < drop < 1 for drop in self.drops):
            raise ValueError(f"drops are {list(self.drops)}; they must rise and lie between 0 and 1")
        return self


ScheduleConfig = Annotated[WSDSchedule | CosineSchedule | StepSchedule, Field(discriminator="kind")]


class TrainConfig(FrozenConfig):
    """How a model is trained. Lengths are in optimiser steps, fractions are of `steps`."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Sequences per step (B)."""
    seq_len: int = Field(ge=8)
    """Tokens predicted in each sequence (T)."""
    learning_rate: float = Field(gt=0)
    """Peak rate of the dense weights."""
    table_lr_multiplier: float = Field(default=5.0, gt=0)
    """Learning rate of the memory tables as a multiple of `learning_rate` (paper, 4.1: 5)."""
    table_optimizer: Literal["adam", "adagrad"] = "adam"
    """How table rows are trained: Adam, with two numbers of state per weight, or row-wise AdaGrad, with one per row."""
    table_format: Literal["fp32", "bf16"] = "fp32"
    """How table rows are stored between steps; bf16 is rounded stochastically. Optimiser state is fp32."""
    weight_decay: float = Field(default=0.1, ge=0)
    """On matrices only, never on tables, norms or embeddings (paper, 4.1)."""
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = WSDSchedule()
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm, dense weights and table rows together."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Autocast type of the matrix products; weights are always fp32. `auto`: bf16 where the hardware supports it."""
    val_tokens: int = Field(default=131_072, ge=1)
    """Validation tokens, rounded down to whole sequences, always from the same documents."""
    n_validations: int = Field(default=4, ge=1)
    """Validations per trial, evenly spaced; the last is at the end."""

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.seq_len

    @property
    def tokens(self) -> int:
        return self.steps * self.tokens_per_step
