"""Training steps on a GPU: captured or not, interrupted or not, they are the same to the bit, and in fp32 those of a CPU."""

import itertools

import pytest
import torch

from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.memory.designs.registry import DESIGNS
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training.trainer import Trainer

from .conftest import DEVICE

HERE, CPU = torch.device(DEVICE), torch.device("cpu")
MODELS = [(design, "mha", 1) for design in DESIGNS] + [("engram", "mla", 1), ("engram", "mha", 4)]


def make_trial(corpus, design="engram", attention="mha", branches=1, rho=0.5, **train) -> TrialConfig:
    size = LADDER["1m"]
    base = baseline(size, corpus.vocab_size, attention)
    model = allocate(base.model_copy(update={"branches": branches}), memory_template(size, design), rho)
    settings = {
        "steps": 12,
        "batch_size": 8,
        "seq_len": 32,
        "learning_rate": 0.01,
        "val_tokens": 2048,
        "n_validations": 2,
        "optimizer": {"kind": "muon"},
        **train,
    }
    return TrialConfig(
        size="1m", rho=rho, seed=0, budget_flops=1e9, model=model, train=TrainConfig.model_validate(settings), **corpus.fingerprints
    )  # fmt: skip


def losses(trainer: Trainer) -> list[float]:
    """Training and validation losses of every step that has them."""
    while not trainer.done:
        trainer.advance(60)
    curve = trainer.outcome().curve
    return [loss for loss in itertools.chain(curve["train_loss"], curve["grad_norm"], curve["val_loss"]) if loss is not None]


@pytest.mark.parametrize(("design", "attention", "branches"), MODELS)
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_captured_step_is_the_same_to_the_bit(tiny_corpus, tmp_path, design, attention, branches, optimizer):
    trial = make_trial(tiny_corpus, design, attention, branches, optimizer={"kind": optimizer})
    captured = Trainer(trial, tiny_corpus, tmp_path / "captured", HERE)
    assert (captured.captured is not None) == (DEVICE == "cuda")
    assert losses(captured) == losses(Trainer(trial, tiny_corpus, tmp_path / "not", HERE, capture=False))


@pytest.mark.parametrize("rho", [0, 1])
@pytest.mark.parametrize("table", [{}, {"table_optimizer": "adagrad", "table_format": "bf16"}])
def test_captured_at_the_ends_of_rho(tiny_corpus, tmp_path, rho, table):
    trial = make_trial(tiny_corpus, rho=rho, **table)
    assert losses(Trainer(trial, tiny_corpus, tmp_path / "captured", HERE)) == losses(
        Trainer(trial, tiny_corpus, tmp_path / "not", HERE, capture=False)
    )


def test_several_passes(tiny_corpus, tmp_path, monkeypatch):
    """A batch in passes gives the sums of the whole batch, up to rounding, captured and not."""
    trial = make_trial(tiny_corpus, precision="fp32", optimizer={"kind": "adamw"})  # Muon's products are bf16 on a GPU
    whole = losses(Trainer(trial, tiny_corpus, tmp_path / "whole", HERE))
    monkeypatch.setattr("engram.training.trainer.pass_tokens", lambda *_: 3 * 32)  # 8 sequences in passes of 3
    found = [losses(Trainer(trial, tiny_corpus, tmp_path / str(capture), HERE, capture=capture)) for capture in (True, False)]
    assert found[0] == found[1]
    assert found[0] == pytest.approx(whole, abs=2e-3)


def test_an_interrupted_trial_goes_on_to_the_bit(tiny_corpus, tmp_path):
    trial = make_trial(tiny_corpus, steps=60)
    whole = losses(Trainer(trial, tiny_corpus, tmp_path / "whole", HERE))
    first = Trainer(trial, tiny_corpus, tmp_path / "parts", HERE, checkpoint_seconds=0)
    while first.state.step < 10:
        first.advance(1e-4)  # a step or a few
    again = Trainer(trial, tiny_corpus, tmp_path / "parts", HERE)
    assert again.state.step == first.state.step
    assert losses(again) == whole


@pytest.mark.parametrize(("design", "attention", "branches"), MODELS)
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_three_steps_are_those_of_a_cpu(tiny_corpus, tmp_path, design, attention, branches, optimizer):
    """With fp32 products on both sides; Muon's own are bf16 on a GPU, so its weights are compared after the first step only."""
    kind = {"kind": optimizer}
    trial = make_trial(tiny_corpus, design, attention, branches, steps=3, n_validations=1, precision="fp32", optimizer=kind)
    trainers = [Trainer(trial, tiny_corpus, tmp_path / str(device), device) for device in (CPU, HERE)]
    for trainer in trainers:
        if trainer.optimizers.muon is not None:
            trainer.optimizers.muon.dtype = torch.float32
    on_cpu, here = map(losses, trainers)
    assert here == pytest.approx(on_cpu, abs=1e-4)
