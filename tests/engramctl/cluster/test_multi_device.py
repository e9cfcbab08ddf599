"""A sweep whose trials run on two devices each, with a real Ray: cut off in every way, it ends where one device does."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from ray.train import WorkerGroupError

from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.sources import CorpusSpec
from engram.processes import ProcessLostError
from engram.scaling.allocation import baseline
from engram.scaling.ladder import LADDER
from engramctl.cluster import multi_device
from engramctl.cluster.worker import WorkerSettings
from engramctl.results.liveness import Process
from engramctl.results.rows.trials import SweepContext
from engramctl.results.store import Store
from tests.engramctl.cluster.listening import LOOPBACK, listening

ENGRAMCTL = Path(sys.executable).parent / "engramctl"
TIMEOUT_S = 300

two_cores = pytest.mark.skipif((psutil.cpu_count(logical=False) or 1) < 2, reason="a trial on two devices wants two cores")


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([str(ENGRAMCTL), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == code, result.stderr
    return result


@pytest.fixture(scope="module")
def arguments(text_folder, cache, tmp_path_factory):
    """Options of a sweep of one trial of a few seconds.

    It trains in fp32, with an AdamW that doesn't blow up the last bit of small gradients: sums over two halves of a batch round
    differently. And on a text that leads to no tie between two experts: from a tie on, rounding decides (docs/LOG.md).
    """
    file = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    spec = {
        "question": "Does it go on?",
        "corpus": {"source": f"files:{text_folder}/*.txt", "vocab_size": 400, "val_fraction": 0.2},
        "sizes": ["1m"],
        "rhos": [0.5],
        "budgets": ["9e10"],
        "train": {"val_tokens": 2048, "n_validations": 2, "precision": "fp32", "optimizer": {"kind": "adamw", "eps": 1e-3}},
    }
    file.write_text(json.dumps(spec))
    return [str(file), "--cache", str(cache)]


def row(results: Path) -> pd.Series:
    (path,) = (results / "tiny" / "trials").glob("*.parquet")
    return pd.read_parquet(path).iloc[0]


def trainers_of(driver: int) -> list[psutil.Process]:
    """The processes that Ray Train started for a driver."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def last_step(results: Path) -> int:
    return max((int(path.parent.name.removeprefix("step-")) for path in results.glob("tiny/checkpoints/*/step-*/state.json")), default=0)


def wait_for(driver: subprocess.Popen[str], condition) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        assert driver.poll() is None, driver.stderr.read()
        time.sleep(0.02)


@two_cores
def test_a_trial_on_two_devices_survives_and_equals_the_one_on_one(arguments, tmp_path):
    run("sweep", *arguments, "--results", str(tmp_path / "one"), "--workers", "1")

    two = tmp_path / "two"
    sweep = ["sweep", *arguments, "--results", str(two), "--devices-per-trial", "2", "--checkpoint-every", "1s"]
    driver = subprocess.Popen([str(ENGRAMCTL), *sweep], stderr=subprocess.PIPE, text=True)
    wait_for(driver, lambda: last_step(two) > 1)
    first = trainers_of(driver.pid)
    assert len(first) == 2
    addresses = listening([psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)])
    assert addresses
    assert addresses <= LOOPBACK, "PyTorch's own processes too"
    first[1].kill()
    reached = last_step(two)
    _, alive = psutil.wait_procs(first, timeout=60)
    assert alive == [], "the other one ended too"
    wait_for(driver, lambda: last_step(two) > reached)  # Tune started the trial again, from its checkpoint
    second = trainers_of(driver.pid)
    assert len(second) == 2
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(second, timeout=60)
    assert alive == [], "the trial ended with its driver"

    refused = run("sweep", *arguments, "--results", str(two), code=2)
    assert "is of a trial on 2 devices, not 1: continue with as many, or remove it" in refused.stderr
    ended = run(*sweep)
    assert "1 finished" in ended.stderr
    a, b = row(tmp_path / "one"), row(two)
    assert b["trial_id"] == a["trial_id"]
    assert b["n_restarts"] == 2
    assert b["val_loss"] == pytest.approx(a["val_loss"], abs=1e-5)
    assert b["tokens"] == a["tokens"]
    assert not (two / "tiny" / ".ray").exists()
    assert run("sample", str(two / "tiny" / "checkpoints" / b["trial_id"]), "the", "--tokens", "4").stdout


class Attempt:
    """An attempt at a trial that is over, in place of Ray Train's."""

    def __init__(self, said: dict[str, Any] | None, error: Exception | None) -> None:
        self.said, self.error = said, error
        self.thread = threading.Thread(target=int)
        self.thread.start()

    def progress(self) -> dict[str, Any] | None:
        return self.said


@pytest.fixture
def end(tiny_corpus, tmp_path, monkeypatch) -> Callable[..., tuple[dict[str, Any], Store]]:
    """What Tune is told about an attempt that ended like this, and the store afterwards; all without Ray."""

    def told(said: dict[str, Any] | None, error: Exception | None) -> tuple[dict[str, Any], Store]:
        size = LADDER["1m"]
        trial = TrialConfig(
            size="1m",
            rho=1,
            seed=0,
            budget_flops=1e9,
            model=baseline(size, tiny_corpus.vocab_size),
            train=TrainConfig(steps=3, batch_size=4, seq_len=32, learning_rate=0.01),
            corpus_fingerprint=tiny_corpus.fingerprint,
            tokenizer_fingerprint=tiny_corpus.tokenizer_fingerprint,
        )
        actor = object.__new__(multi_device.TrialGroup)
        context = SweepContext("tiny", "files", "")
        spec = CorpusSpec.model_validate(tiny_corpus.meta["spec"])
        actor.settings = WorkerSettings(tmp_path, tiny_corpus.folder, spec, context, "cpu", 1, 0.01, 60.0, Process.this(), devices=2)
        actor.store = Store(tmp_path, "tiny")
        actor.reset_config({"trial": trial.model_dump_json()})
        monkeypatch.setattr(multi_device, "_Run", lambda *_: Attempt(said, error))
        return actor.step(), actor.store

    return told


def lost(**failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("two errors", dict(enumerate(failures.values())))


def test_a_bug_in_a_process_becomes_a_failed_row(end):
    defect = multi_device.TrialDefectError("Traceback ...\nMemoryError: no room")
    result, store = end({"done": False, "step": 2}, lost(first=ProcessLostError("gone"), second=defect))
    assert result == {"done": True, "status": "failed", "error": "MemoryError: no room"}
    (kept,) = store.read_trials().to_dict("records")
    assert kept["status"] == "failed"
    assert "Traceback" in kept["error"]


def test_a_lost_process_makes_tune_try_again(end):
    with pytest.raises(WorkerGroupError):
        end({"done": False, "step": 2}, lost(first=ProcessLostError("gone"), second=RuntimeError("killed")))


def test_a_trial_with_a_row_is_done_whatever_happened_afterwards(end):
    said = {"done": True, "status": "finished", "val_loss": 3.0}
    assert end(said, lost(first=RuntimeError("killed")))[0] == said


@two_cores
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices-per-trial", "4096"], "--devices-per-trial 4096: this machine has"),
        (["--devices-per-trial", "2", "--set", "train.batch_size=5"], "a batch of 5 sequences can't be shared by 2 devices"),
        (["--devices-per-trial", "2", "--budget", "5m"], "with --devices-per-trial give --budget in FLOPs"),
    ],
)
def test_what_several_devices_cannot_train_is_refused_in_one_line(arguments, tmp_path, options, message):
    result = run("sweep", *arguments, "--results", str(tmp_path), *options, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "starting Ray" not in result.stderr
