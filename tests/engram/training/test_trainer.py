import dataclasses
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from engram.config.training import AdamWConfig, TrainConfig, WSDSchedule
from engram.config.trial import TrialConfig
from engram.memory.designs.registry import DESIGNS
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training import validation
from engram.training.checkpoints import files as checkpoint
from engram.training.curve import CURVE_COLUMNS
from engram.training.trainer import Trainer
from engram.training.validation import position_buckets

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def make_trial(corpus, rho=0.5, seed=0, **train) -> TrialConfig:
    size = LADDER["1m"]
    settings = {"steps": 12, "batch_size": 8, "seq_len": 32, "learning_rate": 0.01, "val_tokens": 2048, "n_validations": 3, **train}
    return TrialConfig(
        size="1m",
        rho=rho,
        seed=seed,
        budget_flops=1e9,
        model=allocate(baseline(size, corpus.vocab_size), memory_template(size), rho),
        train=TrainConfig(**settings),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
    )


def run(trainer: Trainer):
    while not trainer.done:
        trainer.advance(60)
    outcome = trainer.outcome()
    trainer.discard_checkpoints()
    return outcome


def test_a_trial_learns_and_its_outcome_is_whole(tiny_corpus, tmp_path):
    outcome = run(Trainer(make_trial(tiny_corpus, steps=60), tiny_corpus, tmp_path, CPU))
    values = outcome.values
    assert outcome.status == "finished"
    assert values["val_loss"] < math.log(tiny_corpus.vocab_size) - 1
    assert set(outcome.curve) == set(CURVE_COLUMNS)
    assert outcome.curve["step"] == list(range(1, 61))
    assert [s for s, v in zip(outcome.curve["step"], outcome.curve["val_loss"], strict=True) if v is not None] == [20, 40, 60]
    documents = outcome.documents
    assert documents["loss_sum"].sum() / documents["n_tokens"].sum() == pytest.approx(values["val_loss"], rel=1e-6)
    assert values["val_bpb"] == pytest.approx(documents["loss_sum"].sum() / documents["n_bytes"].sum() / math.log(2))
    assert documents["overlap"].tolist() == tiny_corpus.val_doc_overlap[: len(documents["document"])].tolist()
    assert len(values["loss_by_position"]) == len(position_buckets(32)) == 6
    assert 0 < values["val_loss_se"] < 1
    assert values["load_max_over_mean"] >= 1
    assert (tmp_path / "final" / "weights.safetensors").is_file()
    assert list(tmp_path.iterdir()) == [tmp_path / "final"]


def test_a_corpus_of_before_has_no_overlap(tiny_corpus, tmp_path):
    corpus = dataclasses.replace(tiny_corpus, val_doc_overlap=None)
    documents = run(Trainer(make_trial(corpus, steps=2), corpus, tmp_path, CPU)).documents
    assert documents["overlap"].tolist() == [None] * len(documents["document"])


def test_an_interrupted_trial_ends_with_the_same_numbers(tiny_corpus, tmp_path):
    trial = make_trial(tiny_corpus)
    whole = run(Trainer(trial, tiny_corpus, tmp_path / "whole", CPU))
    first = Trainer(trial, tiny_corpus, tmp_path / "cut", CPU, checkpoint_seconds=0)
    while first.state.step < 7:
        first.advance(0.001)
    second = Trainer(trial, tiny_corpus, tmp_path / "cut", CPU)
    assert second.state.step == 7
    resumed = run(second)
    assert resumed.values["val_loss"] == whole.values["val_loss"]
    assert resumed.curve == whole.curve
    assert resumed.values["n_restarts"] == 1
    a, b = (load_file(tmp_path / name / "final" / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_seed_is_a_result(tiny_corpus, tmp_path):
    losses = [run(Trainer(make_trial(tiny_corpus, seed=s, steps=4), tiny_corpus, tmp_path / f"{i}", CPU)) for i, s in enumerate((1, 1, 2))]
    one, again, other = (outcome.values["val_loss"] for outcome in losses)
    assert one == again
    assert one != other


def test_trials_of_a_seed_see_the_same_tokens(tiny_corpus, tmp_path):
    one, two = (Trainer(make_trial(tiny_corpus, rho=rho), tiny_corpus, tmp_path, CPU) for rho in (0.0, 1.0))
    assert all((one.batches.batch(step) == two.batches.batch(step)).all() for step in range(5))
    assert (one.validator.windows == two.validator.windows).all()


def test_divergence_is_an_outcome(tiny_corpus, tmp_path):
    outcome = run(
        Trainer(make_trial(tiny_corpus, learning_rate=1e4, schedule=WSDSchedule(warmup_fraction=0), steps=40), tiny_corpus, tmp_path, CPU)
    )
    assert outcome.status == "diverged"
    assert "before step" in outcome.error
    assert outcome.documents is None
    assert "val_loss" not in outcome.values
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


def test_nan_is_divergence(tiny_corpus, tmp_path):
    trainer = Trainer(make_trial(tiny_corpus), tiny_corpus, tmp_path, CPU)
    with torch.no_grad():
        trainer.model.norm.weight[0] = float("nan")
    assert run(trainer).error == "loss or gradient became NaN or infinite before step 1"


@pytest.mark.parametrize("rho", [0.5, 1.0])
def test_a_batch_in_several_passes_is_the_same_batch(tiny_corpus, tmp_path, monkeypatch, rho):
    # A large epsilon: without it Adam turns the rounding of a gradient near 0 into a whole step.
    trial = make_trial(tiny_corpus, rho=rho, steps=4, precision="fp32", n_validations=1, optimizer=AdamWConfig(eps=1e-3))
    whole = run(Trainer(trial, tiny_corpus, tmp_path / "whole", CPU))
    monkeypatch.setattr(validation, "PASS_TOKENS", 3 * 32)
    parts = run(Trainer(trial, tiny_corpus, tmp_path / "parts", CPU))
    assert parts.curve["train_loss"] == pytest.approx(whole.curve["train_loss"], rel=1e-4)
    assert parts.curve["grad_norm"] == pytest.approx(whole.curve["grad_norm"], rel=1e-4)
    # Before the first update only sums differ: a row that several passes read counts with the sum of its gradients.
    assert parts.curve["grad_norm"][0] == pytest.approx(whole.curve["grad_norm"][0], rel=1e-6)
    assert parts.values["val_loss"] == pytest.approx(whole.values["val_loss"], rel=1e-4)
    assert parts.values["load_cv"] == pytest.approx(whole.values["load_cv"], rel=1e-2)


def test_another_corpus_is_refused(tiny_corpus, tmp_path):
    trial = make_trial(tiny_corpus).model_copy(update={"corpus_fingerprint": "0" * 64})
    with pytest.raises(ValueError, match="wants corpus 000"):
        Trainer(trial, tiny_corpus, tmp_path, CPU)


def test_the_last_checkpoint_stays_until_the_outcome_is_kept(tiny_corpus, tmp_path):
    trial = make_trial(tiny_corpus)
    trainer = Trainer(trial, tiny_corpus, tmp_path, CPU, checkpoint_seconds=0)
    while not trainer.done:
        trainer.advance(60)
    trainer.outcome()
    assert Trainer(trial, tiny_corpus, tmp_path, CPU).state.step == trial.train.steps - 1
    trainer.discard_checkpoints()
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_loads_of_all_experts_are_logged_and_a_collapse_is_reported(tiny_corpus, tmp_path):
    trial = make_trial(tiny_corpus, steps=30)
    trial = trial.model_copy(
        update={"model": trial.model.model_copy(update={"moe": trial.model.moe.model_copy(update={"balance_step": 0.0})})}
    )
    trainer = Trainer(trial, tiny_corpus, tmp_path, CPU)
    routers = list(trainer.model.routers())
    routers[0].bias[[3, 5]] = -100.0  # never chosen
    routers[1].bias[7] = -100.0
    outcome = run(trainer)
    loads = [row for row in outcome.curve["expert_loads"] if row is not None]
    tokens_by_layer = 10 * trial.train.tokens_per_step * trial.model.moe.top_k  # between two validations
    assert len(loads) == trial.train.n_validations
    for row in loads:
        assert [sum(layer) for layer in row] == [tokens_by_layer] * trial.model.n_moe_layers
        assert row[0][3] == row[0][5] == row[1][7] == 0
    never = sum(load == 0 for layer in loads[-1] for load in layer)
    assert outcome.values["starved_experts"] >= never >= 3
    healthy = run(Trainer(make_trial(tiny_corpus, steps=30), tiny_corpus, tmp_path / "healthy", CPU))
    assert healthy.values["starved_experts"] < outcome.values["starved_experts"]


def test_loads_survive_an_interruption(tiny_corpus, tmp_path):
    trial = make_trial(tiny_corpus, n_validations=1)
    whole = run(Trainer(trial, tiny_corpus, tmp_path / "whole", CPU))
    first = Trainer(trial, tiny_corpus, tmp_path / "cut", CPU, checkpoint_seconds=0)
    while first.state.step < 5:
        first.advance(0.001)
    resumed = run(Trainer(trial, tiny_corpus, tmp_path / "cut", CPU))
    assert resumed.curve["expert_loads"] == whole.curve["expert_loads"]
    assert resumed.values["starved_experts"] == whole.values["starved_experts"]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_design_learns_with_every_optimiser(tiny_corpus, tmp_path, design, kind):
    size = LADDER["1m"]
    base = baseline(size, tiny_corpus.vocab_size, "mla" if kind == "muon" else "mha").model_copy(update={"branches": 2})
    model = allocate(base, memory_template(size, design), 0.3)
    rate = {"adamw": 0.01, "muon": 0.02}[kind]
    trial = make_trial(tiny_corpus, steps=40, learning_rate=rate, optimizer={"kind": kind}).model_copy(update={"model": model})
    trainer = Trainer(trial, tiny_corpus, tmp_path, CPU)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    outcome = run(trainer)
    assert outcome.values["val_loss"] < math.log(tiny_corpus.vocab_size) - 0.8
    assert [name for name, p in trainer.model.named_parameters() if torch.equal(before[name], p)] == []


KILLED = """
import sys, torch
from pathlib import Path
from engram.training.checkpoints import files as checkpoint
from engram.training import validation
folder = Path(sys.argv[1])
step = 0
while True:
    step += 1
    checkpoint.save_step(folder, step, {"w": torch.full((500, 500), float(step))}, {"m": torch.full((9,), float(step))}, {"step": step})
    print(step, flush=True)
"""


def test_a_kill_while_saving_leaves_a_whole_checkpoint(tmp_path):
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        while not int(process.stdout.readline()) > 3:
            pass
        time.sleep(0.01 + 0.013 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        weights, optimizer, state = checkpoint.load_step(tmp_path)
        assert weights["w"].unique().tolist() == optimizer["m"].unique().tolist() == [state["step"]]
