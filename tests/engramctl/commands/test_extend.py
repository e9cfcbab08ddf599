import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training.checkpoints.restore import load_final
from engram.training.trainer import Trainer
from engramctl.cli import app
from engramctl.results.manifest import Manifest
from engramctl.results.parquet import write_row
from engramctl.results.schema.extensions import EXTENSION_COLUMNS, EXTENSION_SCHEMA
from engramctl.results.store import Store
from tests.conftest import write_documents

CPU = torch.device("cpu")
SPENT = {"wall_s", "tokens_per_s", "n_restarts", "started_at", "finished_at"}
"""Columns in which two runs of one extension may differ."""


pytestmark = pytest.mark.usefixtures("settled_process")


@pytest.fixture(scope="module")
def trained(tiny_corpus, tmp_path_factory, one_thread) -> Path:
    """A sweep with the checkpoint of one finished trial, of 8 x 32 tokens a step."""
    store = Store(tmp_path_factory.mktemp("extend"), "small")
    size, corpus = LADDER["1m"], tiny_corpus
    trial = TrialConfig(
        size="1m",
        rho=0.5,
        seed=0,
        budget_flops=1e9,
        model=allocate(baseline(size, corpus.vocab_size), memory_template(size), 0.5),
        train=TrainConfig(steps=60, batch_size=8, seq_len=32, learning_rate=0.01, val_tokens=2048, n_validations=1, precision="fp32"),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
    )
    store.write_manifest(Manifest.model_validate({"sweep": {"corpus": corpus.meta["spec"]}, "trials": []}))
    trainer = Trainer(trial, corpus, store.checkpoints / trial.id, CPU)
    while not trainer.done:
        trainer.advance(60)
    trainer.outcome()
    return store.checkpoints / trial.id


@pytest.fixture
def checkpoint(trained, tmp_path) -> Path:
    """A sweep of its own for each test."""
    shutil.copytree(trained.parents[1], tmp_path / "results" / "small")
    return tmp_path / "results" / "small" / "checkpoints" / trained.name


@pytest.fixture
def extend(cache):
    def call(checkpoint, *options, length=64, code=0, json_wanted=False):
        arguments = [checkpoint, "--length", length, "--cache", cache, "--device", "cpu", *options, *(["--json"] if json_wanted else [])]
        result = CliRunner().invoke(app, ["extend", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if json_wanted else result

    return call


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_an_extension_is_a_checkpoint_and_a_row_of_its_own(checkpoint, extend):
    store, before = Store(checkpoint.parents[2], "small"), files(checkpoint)
    source = load_final(checkpoint, CPU).trial
    shown = extend(checkpoint / "final", "--val-tokens", 512, "--rate", 0.003, "--tokens", 8e3)
    (record,) = store.extensions.glob("*")
    (row,) = pd.read_parquet(store.extensions).to_dict("records")
    new = store.checkpoints / row["trial_id"]
    assert record.name == f"{new.name}.parquet"
    assert files(checkpoint) == before
    assert sorted(path.name for path in new.iterdir()) == [".trained-from", "final"]
    restored = load_final(new, CPU)
    assert restored.trial.id == new.name
    assert (restored.trial.train.seq_len, restored.trial.model.attention.rope.yarn.scale) == (64, 2)
    assert json.loads((new / "final" / "state.json").read_text())["step"] == row["steps"] == 31
    assert list(row) == [column.name for column in EXTENSION_COLUMNS]
    state = json.loads((checkpoint / "final" / "state.json").read_text())
    assert row["val_loss_short_before"] == pytest.approx(state["curve"]["val_loss"][-1], abs=1e-4)  # kernels round otherwise
    assert (row["source_trial_id"], row["sweep"], row["source_length"], row["length"]) == (source.id, "small", 32, 64)
    assert (row["batch_size"], row["tokens"], row["source_tokens"]) == (4, 31 * 256, 60 * 256)
    assert row["val_loss_after"] < row["val_loss_before"]
    assert (row["long_documents"], row["long_tokens"]) == (8, 8 * 32)
    assert 0 < row["train_long_documents"] <= row["train_documents"]
    assert 0 < row["val_long_documents"] <= row["val_documents"]
    assert (row["reference_trial_id"], len(row["gain_by_position"])) == (row["trial_id"], 1)
    assert f"extended from 32 to 64 tokens: {new}" in shown.stdout
    assert f"{row['val_loss_before']:.4f}  {row['val_loss_after']:.4f}" in shown.stdout
    # The sweep knows nothing of it.
    assert store.read_trials().empty
    assert store.finished_ids() == set()
    sample = CliRunner().invoke(app, ["sample", str(new), "the model", "--tokens", "50", "--device", "cpu"])
    assert sample.exit_code == 0


def test_the_same_command_again_does_nothing_and_measuring_again_trains_nothing(checkpoint, extend):
    options = ["--tokens", 2048, "--val-tokens", 256]
    first, before = extend(checkpoint, *options, json_wanted=True), files(checkpoint.parents[1])
    again = extend(checkpoint, *options)
    assert "is there already" in again.stderr
    assert files(checkpoint.parents[1]) == before
    more = extend(checkpoint, *options[:2], "--val-tokens", 512, json_wanted=True)
    assert (first["long_documents"], more["long_documents"]) == (4, 8)
    assert more["val_loss_after"] == pytest.approx(first["val_loss_after"], abs=1e-4)
    assert {name: more[name] for name in SPENT} == {name: first[name] for name in SPENT}
    other = extend(checkpoint, "--tokens", 4096, "--val-tokens", 512, json_wanted=True)
    assert other["trial_id"] != first["trial_id"]
    judged = extend(checkpoint, *options, "--reference", other["checkpoint"], json_wanted=True)
    assert judged["reference_trial_id"] == other["trial_id"]
    assert judged["checkpoint"] == first["checkpoint"]
    # An extension can be extended; a checkpoint that is gone is made again.
    further = extend(first["checkpoint"], *options, length=128, json_wanted=True)
    assert (further["source_length"], further["yarn_scale"], further["source_trial_id"]) == (64, 4, first["trial_id"])
    shutil.rmtree(first["checkpoint"])
    assert extend(checkpoint, *options, json_wanted=True)["val_loss_after"] == first["val_loss_after"]


def test_other_weights_of_the_same_trial_are_extended_anew(checkpoint, extend):
    options = ["--tokens", 512, "--val-tokens", 256]
    first = extend(checkpoint, *options, json_wanted=True)
    record = Path(first["record"])
    write_row(record, EXTENSION_SCHEMA, {name: first[name] for name in EXTENSION_SCHEMA.names})  # as an earlier version wrote it
    assert "trained already; measuring again" in extend(checkpoint, *options).stderr
    assert "is there already" in extend(checkpoint, *options).stderr
    file = checkpoint / "final" / "weights.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(file).items()}, file)
    again = extend(checkpoint, *options, json_wanted=True)
    assert again["trial_id"] == first["trial_id"]
    assert again["val_loss_before"] != first["val_loss_before"]
    assert again["val_loss_after"] != first["val_loss_after"]


def test_a_checkpoint_outside_of_a_sweep(checkpoint, extend, tmp_path):
    alone = shutil.copytree(checkpoint, tmp_path / "elsewhere" / "mine")
    beside = extend(alone, "--tokens", 512, json_wanted=True)
    assert Path(beside["checkpoint"]).parent == alone.parent
    assert sorted(path.name for path in Path(beside["checkpoint"]).iterdir()) == [".trained-from", "extension.parquet", "final"]
    assert beside["sweep"] is None
    out = extend(checkpoint, "--tokens", 512, "--out", tmp_path / "out", json_wanted=True)
    assert out["record"] == str(tmp_path / "out" / beside["trial_id"] / "extension.parquet")
    assert not (checkpoint.parents[1] / "extensions").exists()


STUCK = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background it is ignored
from engram.training.trainer import Trainer
last, step = int(sys.argv.pop(1)), Trainer._step
Trainer._step = lambda self: (self.state.step >= last and time.sleep(600), step(self))
from engramctl.cli import app
app()
"""
"""`engramctl` that trains no further than the step given before its arguments."""


def test_a_stopped_and_killed_extension_ends_with_the_same_numbers(checkpoint, extend, cache, tmp_path):
    options = ["--tokens", "2e4", "--val-tokens", "256", "--checkpoint-every", "0.001s"]
    whole = extend(checkpoint, *options, "--out", tmp_path / "whole", json_wanted=True)
    folder = checkpoint.parent / whole["trial_id"]
    arguments = ["extend", checkpoint, "--length", "64", "--cache", cache, "--device", "cpu", *options]
    for signum, after in ((signal.SIGINT, 5), (signal.SIGKILL, 20)):
        process = subprocess.Popen([sys.executable, "-c", STUCK, str(after), *map(str, arguments)], stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not (folder / f"step-{after:09d}").exists():
            time.sleep(0.01)
        os.kill(process.pid, signum)
        talk = process.communicate()[1]
        assert not (folder / "final").exists()
        assert not (checkpoint.parents[1] / "extensions").exists()
        if signum == signal.SIGINT:
            assert process.returncode == 130
            assert "stopped; the same command continues" in talk
    ended = extend(checkpoint, *options, json_wanted=True)
    assert ended["n_restarts"] == 2
    assert sorted(path.name for path in folder.iterdir()) == [".trained-from", "final"]
    same = set(whole) - SPENT - {"checkpoint", "record", "sweep"}
    assert {name: ended[name] for name in same} == {name: whole[name] for name in same}


def test_an_extension_that_diverges_leaves_nothing(checkpoint, extend):
    result = extend(checkpoint, "--tokens", 8192, "--rate", 1e4, code=1)
    assert "diverged" in result.stderr
    assert "a lower --rate than 1e+04 may help" in result.stderr
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_rm_takes_an_extension(checkpoint, extend):
    row = extend(checkpoint, "--tokens", 512, json_wanted=True)
    result = CliRunner().invoke(app, ["rm", "small", row["trial_id"], "--yes", "--results", str(checkpoint.parents[2])])
    assert result.exit_code == 0, result.output
    assert f"trial {row['trial_id']} of {checkpoint.parents[1]}: 1 extended; 1 checkpoint; " in result.stderr
    assert not [path for path in checkpoint.parents[1].rglob("*") if row["trial_id"] in path.name]


def one_line(result) -> str:
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_mistakes(checkpoint, extend, tmp_path):
    trial = checkpoint.name
    for length, options, message in (
        (32, [], f"--length is 32; it must be more than the 32 tokens that trial {trial} was trained on"),
        (64, ["--rate", "nan"], "--rate is nan; it must be more than 0"),
        (64, ["--device", "tpu"], "device 'tpu' is unknown"),
        (64, ["--checkpoint-every", "soon"], "'soon' is not a duration"),
        (4096, [], "--length is 4096, but the longest of the corpus's"),
        (64, ["--reference", checkpoint], "reads 32 tokens; one that reads 64 is needed"),
        (64, ["--out", checkpoint / "final" / "trial.json"], "can't be written: Not a directory"),
    ):
        assert message in one_line(extend(checkpoint, *options, length=length, code=2))
    unfinished = tmp_path / "unfinished"
    (unfinished / "step-000000002").mkdir(parents=True)
    assert "has not finished" in one_line(extend(unfinished, code=2))
    assert [path.name for path in checkpoint.parent.iterdir()] == [trial]


def test_two_at_a_time(checkpoint, extend):
    row = extend(checkpoint, "--tokens", 512, json_wanted=True)
    with FileLock(Path(row["checkpoint"]) / ".lock"):
        message = one_line(extend(checkpoint, "--tokens", 512, code=2))
    assert f"extension {row['trial_id']} is being trained by another process" in message


def test_a_corpus_that_is_gone(checkpoint, extend, tmp_path):
    spec = json.loads((checkpoint.parents[1] / "sweep.json").read_text())["sweep"]["corpus"]
    message = one_line(extend(checkpoint, "--cache", tmp_path, code=2))
    assert f"is not in the cache {tmp_path}; `engramctl corpus --corpus '{spec['source']}'" in message
    assert "--vocab-size 400` prepares it again" in message
    alone = shutil.copytree(checkpoint, tmp_path / "alone")
    assert "with the options of its sweep prepares it again" in one_line(extend(alone, "--cache", tmp_path, code=2))


def test_a_reference_of_other_tokens(checkpoint, extend, tmp_path):
    from engram.corpus.prepare import prepare_corpus
    from engram.corpus.sources import CorpusSpec

    source = f"files:{write_documents(tmp_path / 'text', 30, seed=9)}/*.txt"
    corpus = prepare_corpus(CorpusSpec(source=source, vocab_size=400, val_fraction=0.2), tmp_path / "cache")
    trial = load_final(checkpoint, CPU).trial
    train = trial.train.model_copy(update={"steps": 1, "val_tokens": 256, "seq_len": 64})
    prints = {"corpus_fingerprint": corpus.fingerprint, "tokenizer_fingerprint": corpus.tokenizer_fingerprint}
    trainer = Trainer(trial.model_copy(update={"train": train, **prints}), corpus, tmp_path / "other", CPU)
    trainer.advance(60)
    trainer.outcome()
    assert "has another tokenizer" in one_line(extend(checkpoint, "--reference", tmp_path / "other", code=2))


def test_the_report_has_extensions(fill, make_row, tmp_path):
    store = fill(tmp_path, [make_row(rho=rho) for rho in (0, 0.5, 1)])
    kinds = {"string": "a", "int64": 64, "double": 3.25}
    row = {field.name: kinds.get(str(field.type), [0.5]) for field in EXTENSION_SCHEMA} | {"trial_id": "e0", "source_trial_id": "t0"}
    write_row(store.extensions / "e0.parquet", EXTENSION_SCHEMA, row)
    assert store.extension_sources() == {"e0": "t0"}
    report = CliRunner().invoke(app, ["report", "allocation", "--results", str(tmp_path)])
    assert report.exit_code == 0, report.output
    page = (tmp_path / "allocation" / "report.html").read_text()
    assert "Longer sequences" in page
    assert "3.2500" in page
