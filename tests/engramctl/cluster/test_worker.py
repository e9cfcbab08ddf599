import os
import shutil
import subprocess
import sys
import time
import weakref
from dataclasses import replace

import psutil
import pytest
import torch

from engram import kernels
from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.corpus.prepare import prepare_corpus
from engram.corpus.sources import CorpusSpec
from engram.errors import UserError
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.training.machine import settle_process
from engramctl.cluster import worker
from engramctl.results.rows.trials import SweepContext
from engramctl.results.schema.trials import CURVE_SCHEMA
from engramctl.results.store import Store
from tests.conftest import write_documents


@pytest.fixture
def trial(tiny_corpus) -> TrialConfig:
    size = LADDER["1m"]
    return TrialConfig(
        size="1m",
        rho=0.5,
        seed=0,
        budget_flops=1e9,
        model=allocate(baseline(size, tiny_corpus.vocab_size), memory_template(size), 0.5),
        train=TrainConfig(steps=3, batch_size=4, seq_len=32, learning_rate=0.01, val_tokens=512),
        corpus_fingerprint=tiny_corpus.fingerprint,
        tokenizer_fingerprint=tiny_corpus.tokenizer_fingerprint,
    )


@pytest.fixture
def bench(tiny_corpus, trial, tmp_path) -> worker.TrialWorker:
    """A worker as Ray would set it up, without Ray."""
    actor = object.__new__(worker.TrialWorker)
    actor.settings = worker.WorkerSettings(
        results=tmp_path,
        corpus_folder=tiny_corpus.folder,
        corpus=CorpusSpec.model_validate(tiny_corpus.meta["spec"]),
        context=SweepContext("tiny", "files", ""),
        device="cpu",
        threads=1,
        report_s=60.0,
        checkpoint_s=60.0,
        driver=worker.Process.this(),
    )
    actor.device, actor.corpus, actor.store = torch.device("cpu"), tiny_corpus, Store(tmp_path, "tiny")
    actor.reset_config({"trial": trial.model_dump_json()})
    return actor


def test_a_finished_trial_is_written_before_it_is_reported(bench, trial):
    result = bench.step()
    assert result["done"]
    assert result["status"] == "finished"
    (row,) = bench.store.read_trials().to_dict("records")
    assert row["trial_id"] == trial.id
    assert TrialConfig.model_validate_json(row["config"]) == trial
    assert row["val_loss"] == result["val_loss"]
    assert row["train_flops"] == 6 * row["p_active"] * row["tokens"]
    assert row["p_total"] == row["p_active"] + row["p_sparse"]
    assert list(bench.store.read_curve(trial.id)["step"]) == [1, 2, 3]
    assert set(bench.store.read_curve(trial.id).columns) == set(CURVE_SCHEMA.names)
    assert bench.store.read_documents(trial.id)["n_tokens"].sum() == row["val_tokens"] == 512


def test_a_cache_that_is_deleted_meanwhile_costs_nothing(bench, trial, text_folder, tmp_path):
    spec = CorpusSpec(source=f"files:{text_folder}/*.txt", vocab_size=400, val_fraction=0.1)
    corpus = prepare_corpus(spec, tmp_path / "cache")
    bench.settings = replace(bench.settings, corpus_folder=corpus.folder, corpus=spec)
    bench.corpus = Corpus.open(corpus.folder)
    shutil.rmtree(tmp_path / "cache")
    assert bench.step()["status"] == "finished", "what is open stays"
    before = bench.store.read_trials()["val_loss"].tolist()
    (bench.store.trials / f"{trial.id}.parquet").unlink()
    bench.corpus = None
    bench.reset_config({"trial": trial.model_dump_json()})
    assert bench.step()["status"] == "finished", "another process makes it again"
    assert bench.store.read_trials()["val_loss"].tolist() == before


def test_a_cache_that_is_deleted_after_its_text_was(bench, trial, tmp_path):
    texts = write_documents(tmp_path / "texts", 120)
    spec = CorpusSpec(source=f"files:{texts}/*.txt", vocab_size=400, val_fraction=0.1)
    corpus = prepare_corpus(spec, tmp_path / "cache")
    bench.settings, bench.corpus = replace(bench.settings, corpus_folder=corpus.folder, corpus=spec), None
    shutil.rmtree(tmp_path / "cache")
    (texts / "0000.txt").unlink()
    result = bench.step()
    assert result["status"] == "failed"
    assert "has been deleted, and files:" in result["error"]


def test_a_damaged_checkpoint_is_reported(bench, trial):
    long = trial.model_copy(update={"train": trial.train.model_copy(update={"steps": 150})})
    bench.settings = replace(bench.settings, report_s=0.05, checkpoint_s=0.0)
    bench.reset_config({"trial": long.model_dump_json()})
    assert bench.step()["note"] == ""
    (step,) = (bench.store.checkpoints / long.id).glob("step-*")
    (step / "weights.safetensors").write_bytes(b"cut off")
    bench.reset_config({"trial": long.model_dump_json()})
    note = bench.step()["note"]
    assert note == f"{step} is damaged (weights.safetensors can't be read): training goes on from the start"


def test_a_trial_that_has_a_row_is_not_trained_again(bench, monkeypatch):
    bench.step()
    bench.reset_config({"trial": bench.trial.model_dump_json()})
    monkeypatch.setattr(worker, "Trainer", None)
    assert bench.step() == {"done": True, "status": "finished"}


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (UserError("table file x.rows is cut off"), "table file x.rows is cut off"),
        (
            OSError(28, "No space left on device", "/full/step-1"),
            "the disk is full (/full/step-1); what was trained",
        ),
        (OSError(30, "Read-only file system", "/ro/step-1"), "/ro/step-1: Read-only file system; what was trained"),
    ],
)
def test_mistakes_and_full_disks_are_one_line_without_a_traceback(bench, trial, monkeypatch, problem, said):
    def fails(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(worker, "Trainer", fails)
    result = bench.step()
    (row,) = bench.store.read_trials().to_dict("records")
    assert row["error"] == result["error"]
    assert result["error"].startswith(said)
    assert "Traceback" not in row["error"]


def test_a_bug_becomes_a_failed_row_and_the_worker_goes_on(bench, trial, monkeypatch):
    def broken(*_, **__):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "Trainer", broken)
        result = bench.step()
    assert result == {"done": True, "status": "failed", "error": "MemoryError: no room"}
    (row,) = bench.store.read_trials().to_dict("records")
    assert row["status"] == "failed"
    assert "Traceback" in row["error"]
    assert bench.store.finished_ids() == set()
    bench.reset_config({"trial": trial.model_dump_json()})
    assert bench.step()["status"] == "finished", "failed trials are tried again"


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_trial_stays_in_memory(bench, monkeypatch, fails):
    """Neither of one that is done nor of one that failed, whose traceback holds the tensors of its last step."""
    trainers, given_back = [], []

    class Seen(worker.Trainer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            trainers.append(weakref.ref(self))

        def advance(self, seconds):
            if fails:
                raise MemoryError("no room")
            return super().advance(seconds)

    give_back = worker.give_back
    monkeypatch.setattr(worker, "Trainer", Seen)
    monkeypatch.setattr(worker, "give_back", lambda device: (give_back(device), given_back.append(trainers[0]())))
    assert bench.step()["status"] == ("failed" if fails else "finished")
    assert given_back == [None]


@pytest.mark.usefixtures("settled_process")
def test_a_worker_compiles_kernels_only_for_a_cpu(monkeypatch):
    loaded = []
    monkeypatch.setattr(kernels, "load", lambda: loaded.append("cpu"))
    for device in ("cuda", "cpu"):
        settle_process(1, torch.device(device))
        assert loaded == ["cpu"] * (device == "cpu")


def test_a_worker_ends_with_its_driver():
    driver = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    created = psutil.Process(driver.pid).create_time()
    code = (
        "import socket, time; from engramctl.cluster.worker import Process, exit_with;"
        f"exit_with(Process(socket.gethostname(), {driver.pid}, {created})); print('watching', flush=True); time.sleep(60)"
    )
    orphan = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert orphan.stdout.readline() == "watching\n"
    time.sleep(0.5)
    assert orphan.poll() is None
    os.kill(driver.pid, 9)
    driver.wait()
    assert orphan.wait(timeout=15) == 1


def test_only_the_row_does_not_fit(bench, trial, small_disk, monkeypatch):
    """The model is written; then curve, documents or row find the disk full, and perhaps the row of the failure as well."""
    undisturbed = bench.step()
    kept, seen = worker.keep_trial, set()
    pages = [-(-file.stat().st_size // 4096) for file in bench.store.folder.glob("*/*.parquet")]
    disk = small_disk("12m")  # a model beside the one that it replaces
    bench.store = Store(disk.folder, "tiny")
    for leave in (12_288, 4096 * (sum(pages) - 1)):
        shutil.rmtree(bench.store.folder, ignore_errors=True)

        def keep(trainer, store, context, leave=leave):
            def write(*rows):
                del store.write_trial  # the row of the failure finds the disk as it is then
                disk.fill(leave)
                store.write_trial(*rows)

            store.write_trial = write
            return kept(trainer, store, context)

        with monkeypatch.context() as patch:
            patch.setattr(worker, "keep_trial", keep)
            bench.reset_config({"trial": trial.model_dump_json()})
            result = bench.step()
        bench.store = Store(disk.folder, "tiny")
        assert result["done"]
        assert result["status"] == "failed"
        assert result["error"].startswith(f"the disk is full ({disk.folder}/tiny/")
        assert bench.store.status(trial.id) in (None, "failed")
        assert bench.store.finished_ids() == set()
        assert not [file for file in disk.files() if ".tmp" in file]
        seen.add(bench.store.status(trial.id))
        disk.make_room()
    assert seen == {None, "failed"}
    bench.reset_config({"trial": trial.model_dump_json()})
    assert bench.step()["val_loss"] == undisturbed["val_loss"]
    assert bench.store.finished_ids() == {trial.id}


def test_a_trial_whose_model_has_no_room_is_not_trained(bench, trial, small_disk, monkeypatch):
    disk = small_disk("1m")
    bench.store = Store(disk.folder, "tiny")
    monkeypatch.setattr(worker, "Trainer", None)
    result = bench.step()
    assert result["error"].startswith("the disk is full: weights of ")
    assert f"MB go to {disk.folder}/tiny/checkpoints/{trial.id}, 1.05 MB are free there" in result["error"]
    assert bench.store.status(trial.id) == "failed"
