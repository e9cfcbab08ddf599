"""What is measured: models of a size, a dense model of the same P_active, longer tables, and trials of them that don't end."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from engram.accounting import count_parameters
from engram.allocation import TOLERANCE, allocate, baseline, memory_template, spread
from engram.benchmarks.timing import Turn, synchronise
from engram.config import ModelConfig, MoEConfig, TrialConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engram.ladder import LADDER, Size
from engram.recipe import learning_rate, sequence_and_batch
from engram.training.loop import Trainer
from engram.training_config import TrainConfig

STUDY = Size("study", n_layers=3, width=96, n_heads=2, expert_width=24, n_routed_experts=100, top_k=6, shared_experts=2)
"""The shape of an early study, with the sequences and the batch of size 3m. At rho = 0.8 it has 81 experts."""
STUDY_LIKE = "3m"

ENDLESS = 10**9
"""Steps of a trial that is stopped by the clock. The learning rate is that of the first steps of its warm-up, next to nothing."""
_SHORTEST_S = 1e-3

Precision = Literal["auto", "bf16", "fp32"]


def named_size(name: str) -> Size:
    """`study` or a size of the ladder; UserError lists the names there are."""
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

    @property
    def train(self) -> TrainConfig:
        """Training that does not end; UserError when there is no such optimiser."""
        seq_len, batch_size = sequence_and_batch(LADDER[STUDY_LIKE] if self.size == STUDY else self.size)
        rate = learning_rate(self.size, self.optimizer)
        values = {"seq_len": seq_len, "batch_size": batch_size, "learning_rate": rate, "optimizer": {"kind": self.optimizer}}
        few = {"steps": ENDLESS, "n_validations": 1, "val_tokens": seq_len}
        return TrainConfig.model_validate({**values, **few, "precision": self.precision})

    @property
    def tokens_per_step(self) -> int:
        return self.train.tokens_per_step

    def sparse(self, rho: float) -> ModelConfig:
        """The model of a rho; P_total and P_active are the same for all."""
        return allocate(baseline(self.size, self.corpus.vocab_size), memory_template(self.size), rho)

    def trial(self, model: ModelConfig, rho: float = 1.0) -> TrialConfig:
        """A trial of a model that does not end."""
        return TrialConfig(
            size=self.size.name,
            rho=rho,
            seed=0,
            budget_flops=float(6 * count_parameters(model).p_active * self.train.tokens),
            model=model,
            train=self.train,
            corpus_fingerprint=self.corpus.fingerprint,
            tokenizer_fingerprint=self.corpus.tokenizer_fingerprint,
        )

    def trainer(self, model: ModelConfig, rho: float = 1.0) -> Trainer:
        """Trains a model until nobody asks for more; keeps nothing."""
        return endless_trainer(self.trial(model, rho), self.corpus, self.device)


def endless_trainer(trial: TrialConfig, corpus: Corpus, device: torch.device) -> Trainer:
    """A trainer without checkpoints."""
    return Trainer(trial, corpus, Path("/nonexistent"), device, checkpoint_seconds=float("inf"))


def steps(trainer: Trainer) -> Turn:
    """The turn of whole optimiser steps."""

    def turn(seconds: float) -> float:
        synchronise(trainer.device)
        first, started = trainer.state.step, time.perf_counter()
        while trainer.state.step == first:
            trainer.advance(max(seconds, _SHORTEST_S))
        synchronise(trainer.device)
        return (time.perf_counter() - started) / (trainer.state.step - first)

    return turn


def dense_twin(sparse: ModelConfig) -> ModelConfig:
    """A model without experts and memory whose P_active is that of `sparse` within the tolerance of a sweep: its feed-forward
    layers are as wide as it takes. UserError where no width comes so near."""
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
    # Even widths first: the kernels take nothing else.
    candidates = sorted((build(width) for width in range(fitting - 1, fitting + 3)), key=lambda m: (m.moe.dense_width % 2, deviation(m)))
    for model in candidates:
        if deviation(model) <= TOLERANCE:
            return ModelConfig.model_validate(model.model_dump())
    raise UserError(f"no dense model has P_active within {100 * TOLERANCE} % of {target:,}; take a larger size")


def with_longer_tables(model: ModelConfig, factor: int) -> ModelConfig:
    """The model with tables of `factor` times the rows, and P_total larger by that."""
    if model.memory is None:
        raise ValueError("the model has no tables")
    longer = tuple(factor * rows for rows in model.memory.table_sizes)
    return model.model_copy(update={"memory": model.memory.model_copy(update={"table_sizes": longer})})
