"""Whether losses are right: those of a CPU in fp32, and those of plain fp32 after many steps of everything that makes training fast."""

import itertools
import math
import statistics
from contextlib import nullcontext
from dataclasses import replace

import torch

from engram import kernels
from engram.benchmarks.gpu.environment import RHO, Environment, Tell
from engram.benchmarks.shapes import Precision, Setup
from engram.config.trial import TrialConfig
from engram.training.checkpoints.files import NOWHERE
from engram.training.machine import give_back
from engram.training.trainer import Trainer

_STEPS, _LONG, _SEEDS = 3, 500, 3
_FEW_TOKENS, _LONG_TOKENS = 1024, 4096
_REHEARSED = 20


def measure_first_losses(environment: Environment, tell: Tell) -> None:
    """The largest difference of the losses of three steps in fp32 from those of the CPU, which computes without its kernels."""
    found = {}
    for optimizer in ("adamw", "muon"):
        setup = environment.setup("10m", _FEW_TOKENS, "fp32", optimizer)
        here = _losses(setup, _short(setup, _STEPS))
        with kernels.plain():
            there = _losses(replace(setup, device=torch.device("cpu")), _short(setup, _STEPS))
        found[optimizer] = max(abs(one - other) for one, other in zip(here, there, strict=True))
        again = _losses(setup, _short(setup, _STEPS))
        tell(largest_difference=found, twice_the_same=here == again)


def measure_late_losses(environment: Environment, tell: Tell) -> None:
    """Training losses at the end of 500 steps, by seed: as we train, and in plain fp32."""
    steps = _REHEARSED if environment.rehearsal else _LONG
    runs: dict[str, list[float]] = {"as trained": [], "plain fp32": []}
    for seed in range(_SEEDS):
        for name, precision in (("as trained", "auto"), ("plain fp32", "fp32")):
            setup = environment.setup("10m", _LONG_TOKENS, _precision(precision))
            with kernels.plain() if name == "plain fp32" else nullcontext():
                losses = _losses(setup, _short(setup, steps, seed))
            runs[name].append(statistics.fmean(losses[-max(1, len(losses) // 10) :]))
            tell(steps=steps, losses=runs)
            give_back(setup.device)
    differences = [one - other for one, other in zip(*runs.values(), strict=True)]
    between = [abs(one - other) for one, other in itertools.combinations(runs["plain fp32"], 2)]
    tell(mean_difference=abs(statistics.fmean(differences)), between_seeds=statistics.fmean(between))


def _precision(name: str) -> Precision:
    return "fp32" if name == "fp32" else "auto"


def _short(setup: Setup, steps: int, seed: int = 0) -> TrialConfig:
    """A real trial of some steps, whose losses are all in its curve."""
    trial = setup.trial(setup.sparse(RHO), RHO)
    return trial.model_copy(update={"seed": seed, "train": trial.train.model_copy(update={"steps": steps})})


def _losses(setup: Setup, trial: TrialConfig) -> list[float]:
    trainer = Trainer(trial, setup.corpus, NOWHERE, setup.device, checkpoint_seconds=math.inf)
    trainer.advance(math.inf)
    losses: list[float] = trainer.state.curve["train_loss"]
    return losses
