"""Trials that two real processes train, against one that trains alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.processes import Processes
from engram.training.checkpoints import files as checkpoint
from engram.training.checkpoints.restore import load_final
from engram.training.checkpoints.tensor_file import Form, write_tensors
from engram.training.replicas import check_processes, clip_gradients, share_of_batch, share_of_windows
from engram.training.trainer import Trainer

CPU = torch.device("cpu")
SCRIPT = Path(__file__).with_name("train_together.py")
TIMEOUT_S = 600
"""Of what hangs; busy machines are slow."""
MODEL = {
    "width": 24,
    "n_layers": 2,
    "branches": 1,
    "attention": {"kind": "mha", "n_heads": 2},
    "moe": {"n_routed_experts": 8, "top_k": 2, "expert_width": 8, "shared_width": 8},
    "memory": {"design": "engram", "layers": [0, 1], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12},
}


def make_trial(corpus, seed: int = 0, model: dict[str, Any] | None = None, **train: Any) -> TrialConfig:
    changes = {**(model or {})}
    changes["memory"] = {**MODEL["memory"], **changes.get("memory", {})}
    settings = {"steps": 200, "batch_size": 8, "seq_len": 16, "learning_rate": 0.01, "val_tokens": 1000, "n_validations": 2}
    return TrialConfig(
        size="tiny",
        rho=0.5,
        seed=seed,
        budget_flops=1e9,
        model=ModelConfig.model_validate({**MODEL, "vocab_size": corpus.vocab_size, **changes}),
        train=TrainConfig(**{**settings, "precision": "fp32", **train}),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
    )


def short_trial(corpus) -> TrialConfig:
    return make_trial(corpus, seed=2, steps=80, n_validations=1, model={"n_layers": 1, "memory": {"layers": [0]}})


def start(corpus, jobs: list[dict[str, Any]], folder: Path, count: int = 2) -> list[subprocess.Popen[str]]:
    """Processes that train these jobs, which name their folders below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rendezvous = folder / f"rendezvous-{time.monotonic_ns()}"
    ready = [job | {"trial": job["trial"].model_dump(mode="json"), "folder": str(folder / job["folder"])} for job in jobs]
    file = folder / f"jobs-{count}.json"
    file.write_text(json.dumps({"count": count, "rendezvous": str(rendezvous), "corpus": str(corpus.folder), "jobs": ready}))
    command = [sys.executable, str(SCRIPT), str(file)]
    return [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(count)]


def finish(processes: list[subprocess.Popen[str]]) -> None:
    try:
        errors = [process.communicate(timeout=TIMEOUT_S)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), errors


def outcome(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"outcome-{rank}.json").read_text())


EQUAL = ["adamw", "muon in passes"]
"""Cases in which rounding is not amplified, so that equality can be asked for to the end: see `trained`."""
DRIFTING = ["muon in bf16", "bf16 rows"]
"""Cases that amplify rounding: one process drifts as far from itself when its initial weights change by `AMPLIFIED`."""
AMPLIFIED = 1e-7
"""Rounding of fp32, about."""
CASES = [*EQUAL, "adamw by experts", *DRIFTING]


@pytest.fixture(scope="module")
def trained(tiny_corpus, tmp_path_factory) -> Path:
    """Folders `one/<case>` and `two/<case>`: trials in one process and in two; `one/twin of <case>`, of slightly other weights at the
    start; and a short trial in two.

    Two processes sum in another order than one, and so does another CPU. Three things make that last bit of fp32 a difference in the
    losses: an expert is chosen or not where two scores are all but equal; Adam makes whole steps where gradients are next to zero,
    unless its eps is large; products in bf16 round a number to one neighbour or the other, which are 4e-3 apart. "adamw" has none of
    them. "muon in passes" chooses experts, but its seed is one with which no two scores come close (7e-6, ten times their difference
    between a process and its twin).
    """
    folder = tmp_path_factory.mktemp("replicas")
    adamw = {"kind": "adamw", "eps": 1e-3}
    # An odd number of rows, and some that many tokens read; one set of tables.
    small = {"n_layers": 1, "memory": {"table_sizes": [2, 37], "layers": [0]}}
    muon = {"optimizer": {"kind": "muon"}, "model": small, "seed": 1}
    trials = {
        "adamw": make_trial(tiny_corpus, optimizer=adamw, model={"moe": {**MODEL["moe"], "top_k": 8}}),  # of 8 experts
        "muon in passes": make_trial(tiny_corpus, **muon),
        "adamw by experts": make_trial(tiny_corpus, optimizer=adamw, steps=40),
        "muon in bf16": make_trial(tiny_corpus, steps=100, **muon),
        "bf16 rows": make_trial(tiny_corpus, steps=40, table_format="bf16"),
    }
    running = []
    for count, name in ((1, "one"), (2, "two")):
        settings = {"muon in passes": {"pass_tokens": 4 * 16 // count}, "muon in bf16": {"products": "bfloat16"}}
        jobs = [{"trial": trial, "folder": f"{name}/{case}", **settings.get(case, {})} for case, trial in trials.items()]
        if count == 1:
            jobs += [
                {"trial": trials[case], "folder": f"one/twin of {case}", "perturbed": AMPLIFIED, **settings.get(case, {})}
                for case in DRIFTING
            ]
        else:
            jobs.append({"trial": short_trial(tiny_corpus), "folder": "two/short"})
        running += start(tiny_corpus, jobs, folder, count)
    finish(running)
    return folder


@pytest.mark.parametrize("case", EQUAL)
def test_two_processes_equal_one(trained, case):
    one, two = outcome(trained / "one" / case), outcome(trained / "two" / case)
    assert two["first_logits"] == one["first_logits"], "the same model, to the bit, before the first step"
    assert two["last_logits"] == pytest.approx(one["last_logits"], abs=1e-4)
    assert len(one["curve"]["train_loss"]) == 200
    assert one["curve"]["train_loss"][-1] < one["curve"]["train_loss"][0] - 2
    for column in ("train_loss", "val_loss", "copy_loss"):
        pairs = [(a, b) for a, b in zip(one["curve"][column], two["curve"][column], strict=True) if a is not None]
        assert pairs
        assert max(abs(a - b) for a, b in pairs) <= 2e-6, column  # losses of 6 nats have steps of 5e-7 in fp32
    assert two["curve"]["grad_norm"] == pytest.approx(one["curve"]["grad_norm"], rel=1e-5)
    assert two["val_loss"] == pytest.approx(one["val_loss"], abs=1e-6)
    assert two["document_losses"] == pytest.approx(one["document_losses"], rel=1e-5)
    assert two["curve"]["expert_loads"] == one["curve"]["expert_loads"], "counts are of all processes"
    assert two["curve"]["load_cv"] == pytest.approx(one["curve"]["load_cv"])
    assert two["starved_experts"] == one["starved_experts"]


def test_two_processes_equal_one_as_long_as_they_choose_the_same_experts(trained):
    one, two = (outcome(trained / name / "adamw by experts") for name in ("one", "two"))
    assert two["first_logits"] == one["first_logits"]
    pairs = zip(one["curve"]["load_cv"], two["curve"]["load_cv"], strict=True)
    same = next((step for step, (a, b) in enumerate(pairs) if a != b), 40)
    assert same >= 5, "nothing but a score in 1e6 that is all but equal to another makes them choose differently"
    assert two["curve"]["train_loss"][:same] == pytest.approx(one["curve"]["train_loss"][:same], rel=0, abs=2e-6)
    assert two["curve"]["grad_norm"][:same] == pytest.approx(one["curve"]["grad_norm"][:same], rel=1e-5)


@pytest.mark.parametrize("case", DRIFTING)
def test_two_processes_drift_from_one_no_more_than_rounding_makes_them(trained, case):
    """Of the products, or of the rows, which are rounded at random: what differs in the last bit of fp32 may end in another neighbour."""
    one, twin, two = (outcome(trained / folder) for folder in (f"one/{case}", f"one/twin of {case}", f"two/{case}"))
    assert two["first_logits"] == one["first_logits"]
    losses, of_twin, of_two = (np.array(x["curve"]["train_loss"]) for x in (one, twin, two))
    alike = 3 if "muon" in case else 1  # steps
    assert np.abs(of_two - losses)[:alike].max() <= 1e-5
    assert two["curve"]["grad_norm"][:alike] == pytest.approx(one["curve"]["grad_norm"][:alike], rel=1e-5)
    half = len(losses) // 2
    drift, natural = (np.abs(other - losses)[half:].mean() for other in (of_two, of_twin))
    assert drift <= 3 * natural + 1e-3
    assert losses[-1] < losses[0] - 2


@pytest.mark.parametrize("case", CASES)
def test_the_processes_have_the_same_dense_weights_and_rows_of_their_own(trained, case):
    first, second = (outcome(trained / "two" / case, rank) for rank in (0, 1))
    tables = {name for name in first["digests"] if "tables" in name}
    assert tables
    for name, digest in first["digests"].items():
        assert (digest == second["digests"][name]) == (name not in tables), name
    rows = outcome(trained / "one" / case)["rows"]
    assert [a + b for a, b in zip(first["rows"], second["rows"], strict=True)] == rows
    assert all(0 <= a - b <= 1 for a, b in zip(first["rows"], second["rows"], strict=True))
    assert first["curve"]["train_loss"] == second["curve"]["train_loss"]
    assert first["document_losses"] == second["document_losses"]


@pytest.mark.parametrize("case", EQUAL)
def test_the_final_checkpoint_is_that_of_one_process(trained, case):
    one, two = (trained / name / case / "checkpoints" for name in ("one", "two"))
    assert [path.name for path in two.iterdir()] == ["final"]
    a, b = (load_file(folder / "final" / "weights.safetensors") for folder in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name], b[name], atol=1e-4), name
    tokens = torch.arange(32)[None]
    with torch.no_grad():
        logits = [load_final(folder, CPU).model.logits(tokens) for folder in (one, two)]
    assert torch.allclose(*logits, atol=1e-3)


def test_rows_in_bf16_are_sharded_too(trained):
    a, b = (load_file(trained / name / "bf16 rows/checkpoints/final/weights.safetensors") for name in ("one", "two"))
    assert {name: x.dtype for name, x in a.items()} == {name: x.dtype for name, x in b.items()}
    assert {name for name, x in a.items() if x.dtype == torch.bfloat16} == {name for name in a if "tables" in name}


def wait_for(condition, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), [p.stderr.read() for p in processes if p.poll() is not None]
        time.sleep(0.01)


def test_a_killed_process_ends_the_other_and_the_trial_goes_on_from_its_checkpoint(tiny_corpus, trained, tmp_path):
    trial = short_trial(tiny_corpus)
    running = start(tiny_corpus, [{"trial": trial, "folder": "cut", "last_checkpoint": 20, "rest": 50}], tmp_path)
    steps = tmp_path / "cut" / "checkpoints"
    progress = tmp_path / "cut" / "step-1"
    try:
        wait_for(lambda: progress.exists() and int(progress.read_text() or 0) > 25, running)
        os.kill(running[1].pid, signal.SIGKILL)  # somewhere up to step 50
        error = running[0].communicate(timeout=TIMEOUT_S / 4)[1]  # long before the limit of what the processes send each other
        running[1].communicate(timeout=TIMEOUT_S / 4)
    finally:
        for process in running:
            process.kill()
    assert running[0].returncode == 1
    assert "ProcessLostError: another process of the trial does not answer" in error

    latest = checkpoint.last_step(steps)
    files = {"weights.safetensors", "optimizer.safetensors", "state.json", "shard-0-of-2.safetensors", "shard-1-of-2.safetensors"}
    assert {path.name for path in latest.iterdir()} == files | {f"{name}.crc32" for name in files}
    with pytest.raises(UserError, match="of a trial on 2 devices, not 1: continue with as many, or remove it"):
        Trainer(trial, tiny_corpus, steps, CPU)
    finish(start(tiny_corpus, [{"trial": trial, "folder": "cut"}], tmp_path))
    again, whole = outcome(tmp_path / "cut"), outcome(trained / "two" / "short")
    assert again["started_at"] == int(latest.name.removeprefix("step-")) == 20
    assert again["curve"] == whole["curve"], "to the bit"
    assert again["digests"] == whole["digests"]
    assert outcome(tmp_path / "cut", 1)["digests"] == outcome(trained / "two" / "short", 1)["digests"]


def test_what_can_not_be_shared_is_refused(tiny_corpus):
    trial = make_trial(tiny_corpus)
    check_processes(trial.model, trial.train, 8)
    with pytest.raises(UserError, match="a batch of 8 sequences can't be shared by 3 devices; it must be a multiple of them"):
        check_processes(trial.model, trial.train, 3)
    few = make_trial(tiny_corpus, model={"memory": {"table_sizes": [2, 2], "n_heads": 1}}, batch_size=40)
    with pytest.raises(UserError, match="a memory with 5 rows can't be spread over 20 devices"):
        check_processes(few.model, few.train, 20)


def test_a_batch_and_the_validation_are_shared_out():
    batch = np.arange(12).reshape(6, 2)
    shares = [share_of_batch(batch, Processes(rank, 3)) for rank in range(3)]
    assert np.array_equal(np.concatenate(shares), batch)
    assert {len(one) for one in shares} == {2}
    windows = np.arange(14).reshape(7, 2)
    shares = [share_of_windows(windows, Processes(rank, 3)) for rank in range(3)]
    assert np.array_equal(np.concatenate(shares)[:7], windows)
    assert {len(one) for one in shares} == {3}


def test_one_process_clips_dense_weights_and_rows_together():
    row, dense = torch.zeros(1, 2), torch.zeros(1)
    row.grad, dense.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert clip_gradients([dense], [row], 1.0, Processes()) == pytest.approx(5.0)
    assert row.grad[0, 0] == pytest.approx(0.6)
    assert dense.grad[0] == pytest.approx(0.8)


def test_a_file_written_in_pieces_is_the_one_written_at_once(tmp_path):
    tensors = {"a": torch.randn(3, 4), "scalar": torch.tensor(2.0), "empty": torch.empty(0, 3), "half": torch.randn(2, 5).bfloat16()}
    tensors |= {"table": torch.randn(10, 3), "half table": torch.randn(6, 2).bfloat16()}
    save_file(tensors, tmp_path / "whole.safetensors")
    rest = {name: value for name, value in tensors.items() if "table" not in name}
    forms = {"table": Form((10, 3), torch.float32), "half table": Form((6, 2), torch.bfloat16)}
    pieces = [(name, iter(tensors[name].split(4))) for name in forms]
    write_tensors(tmp_path / "pieces.safetensors", rest, forms, pieces)
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "pieces"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    one = {"table": forms["table"]}
    with pytest.raises(ValueError, match="table has 48 bytes"):
        write_tensors(tmp_path / "short.safetensors", rest, one, [("table", [tensors["table"][:4]])])
    with pytest.raises(TypeError, match="table is torch"):
        write_tensors(tmp_path / "other.safetensors", rest, one, [("table", [tensors["table"].bfloat16()])])
