"""What is measured: models of a size, a dense model of the same P_active, longer tables, and endless trials of these models."""

import time
from dataclasses import dataclass
from typing import Literal

import torch

from engram.benchmarks.timing import Turn, synchronise
from engram.config.model import ModelConfig, MoEConfig
from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engram.memory.designs.base import Memory
from engram.scaling.accounting import count_parameters
from engram.scaling.allocation import TOLERANCE, allocate, baseline, memory_template, spread
from engram.scaling.ladder import LADDER, Size
from engram.scaling.recipe import DEFAULT_RECIPE
from engram.training.checkpoints.files import NOWHERE
from engram.training.trainer import Trainer

STUDY = Size("study", n_layers=3, width=96, n_heads=2, expert_width=24, n_routed_experts=100, top_k=6, shared_experts=2)
"""The shape of an early study, which takes sequence length and batch from size 3m. At rho = 0.8 it has 81 experts."""
STUDY_LIKE = "3m"

ENDLESS = 10**9
"""Steps of a trial that is stopped by the clock; its learning rate, that of the first steps of a warm-up, is next to nothing."""
_SHORTEST_S = 1e-3

Precision = Literal["auto", "bf16", "fp32"]


def named_size(name: str) -> Size:
    """`study` or a size of the ladder; an unknown name is a UserError that lists the names."""
    sizes = {STUDY.name: STUDY, **LADDER}
    if name not in sizes:
        raise UserError(f"size '{name}' is unknown; there are {', '.join(sizes)}")
    return sizes[name]


@dataclass(frozen=True)
class Setup:
    """What all models of a measurement share."""

    size: Size
    optimizer: str
    """Kind: muon or adamw."""
    corpus: Corpus
    device: torch.device
    precision: Precision = "auto"
    step_tokens: int | None = None
    """Tokens a step, rounded down to whole sequences; None: those of the recipe."""

    @property
    def train(self) -> TrainConfig:
        """Endless training; UserError when there is no such optimiser."""
        seq_len, batch_size = DEFAULT_RECIPE.sequence_and_batch[STUDY_LIKE if self.size == STUDY else self.size.name]
        if self.step_tokens is not None:
            batch_size = max(1, self.step_tokens // seq_len)
        rate = DEFAULT_RECIPE.learning_rate(self.size, self.optimizer)
        values = {"seq_len": seq_len, "batch_size": batch_size, "learning_rate": rate, "optimizer": {"kind": self.optimizer}}
        few = {"steps": ENDLESS, "n_validations": 1, "val_tokens": seq_len}
        return TrainConfig.model_validate({**values, **few, "precision": self.precision})

    @property
    def tokens_per_step(self) -> int:
        return self.train.tokens_per_step

    def sparse(self, rho: float) -> ModelConfig:
        """The model at a rho; P_total and P_active are the same for all rhos."""
        return allocate(baseline(self.size, self.corpus.vocab_size), memory_template(self.size), rho)

    def trial(self, model: ModelConfig, rho: float = 1.0) -> TrialConfig:
        """An endless trial of a model."""
        return TrialConfig(
            size=self.size.name,
            rho=rho,
            seed=0,
            budget_flops=float(6 * count_parameters(model).p_active * self.train.tokens),
            model=model,
            train=self.train,
            **self.corpus.fingerprints,
        )

    def trainer(self, model: ModelConfig, rho: float = 1.0) -> Trainer:
        """A trainer for a model that trains for as long as it is asked to, and saves nothing."""
        return endless_trainer(self.trial(model, rho), self.corpus, self.device)


def endless_trainer(trial: TrialConfig, corpus: Corpus, device: torch.device) -> Trainer:
    """A trainer without checkpoints."""
    return Trainer(trial, corpus, NOWHERE, device, checkpoint_seconds=float("inf"))


def steps(trainer: Trainer) -> Turn:
    """A turn of whole optimiser steps."""

    def turn(seconds: float) -> float:
        synchronise(trainer.device)
        first, started = trainer.state.step, time.perf_counter()
        while trainer.state.step == first:
            trainer.advance(max(seconds, _SHORTEST_S))
        synchronise(trainer.device)
        return (time.perf_counter() - started) / (trainer.state.step - first)

    return turn


def dense_twin(sparse: ModelConfig) -> ModelConfig:
    """A model without experts and memory, with feed-forward layers so wide that P_active is that of `sparse`, within a sweep's tolerance.

    Raises UserError when no width comes close enough.
    """
    target = count_parameters(sparse).p_active

    def build(width: int) -> ModelConfig:
        moe = MoEConfig(
            n_routed_experts=0, top_k=0, expert_width=0, shared_width=0, n_dense_layers=sparse.n_layers, dense_width=max(1, width)
        )
        return sparse.model_copy(update={"moe": moe, "memory": None})

    def deviation(model: ModelConfig) -> float:
        return spread([count_parameters(model).p_active, target])

    one = count_parameters(build(2)).p_active - count_parameters(build(1)).p_active
    fitting = 1 + (target - count_parameters(build(1)).p_active) // one
    # Even widths first: the kernels accept no others.
    candidates = sorted((build(width) for width in range(fitting - 1, fitting + 3)), key=lambda m: (m.moe.dense_width % 2, deviation(m)))
    for model in candidates:
        if deviation(model) <= TOLERANCE:
            return ModelConfig.model_validate(model.model_dump())
    raise UserError(f"no dense model has P_active within {100 * TOLERANCE} % of {target:,}; take a larger size")


def with_longer_tables(model: ModelConfig, factor: int) -> ModelConfig:
    """The model with `factor` times as many rows in its tables, and a larger P_total accordingly."""
    if model.memory is None:
        raise ValueError("the model has no tables")
    longer = tuple(factor * rows for rows in model.memory.table_sizes)
    return model.model_copy(update={"memory": model.memory.model_copy(update={"table_sizes": longer})})


def memory_with_rows(memory: Memory, rows: int) -> Memory:
    """The memory with about `rows` rows in all of its tables together."""
    each = max(2, round(rows / (len(memory.table_layers) * memory.reads)))
    return memory.model_copy(update={"table_sizes": (each,) * len(memory.table_sizes)})
