"""How long the parts of a trial take on this machine, timed on a few real steps."""

import time
from dataclasses import dataclass

import torch

from engram import kernels
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.training.checkpoints.files import NOWHERE
from engram.training.trainer import Trainer

_WARM_UP_S = 1.5


@dataclass(frozen=True)
class Speed:
    """Seconds that the parts of a trial take."""

    setup_s: float
    step_s: float
    validation_s: float

    def trial_s(self, steps: int, n_validations: int) -> float:
        """Seconds that a whole trial takes."""
        return self.setup_s + steps * self.step_s + n_validations * self.validation_s


def measure_speed(trial: TrialConfig, corpus: Corpus, device: torch.device, seconds: float) -> Speed:
    """Train `trial` for about `seconds` after a warm-up and validate once; nothing is saved."""
    endless = trial.model_copy(update={"train": trial.train.model_copy(update={"steps": 10**9, "n_validations": 1})})
    started = time.monotonic()
    trainer = Trainer(endless, corpus, NOWHERE, device, checkpoint_seconds=float("inf"))
    setup = time.monotonic() - started
    trainer.advance(_WARM_UP_S)
    first, started = trainer.state.step, time.monotonic()
    trainer.advance(seconds)
    step = (time.monotonic() - started) / (trainer.state.step - first)
    started = time.monotonic()
    trainer.validator.validate(trainer.model, trainer.autocast())
    trainer.validator.copy_loss(trainer.model, trainer.autocast())
    return Speed(setup, step, time.monotonic() - started)


_MATMUL = 768
_EFFICIENCY, _WITH_KERNELS = 0.2, 0.4
"""Rough share of the peak of matrix products that training reaches at small shapes; the second with compiled kernels (AVX-512, no AMX)."""


def guess_flops_per_s(device: torch.device, precision: str) -> float:
    """Training FLOPs per second to expect when no step has been timed: a share of what a quarter second of matrix products reaches."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(_MATMUL, _MATMUL, device=device).to(kind)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (a @ a).sum().item()
    started, products = time.monotonic(), 0
    while time.monotonic() - started < 0.25:
        (a @ a).sum().item()
        products += 1
    elapsed = time.monotonic() - started
    torch.set_num_threads(threads)
    with_kernels = device.type == "cpu" and kernels.available() and not torch.cpu.get_capabilities().get("amx_bf16")
    return (_WITH_KERNELS if with_kernels else _EFFICIENCY) * products * 2 * _MATMUL**3 / elapsed
