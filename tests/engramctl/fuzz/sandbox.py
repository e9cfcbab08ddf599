"""A small world in which commands run: results, a cache, a checkpoint, files of every kind that somebody may hand over; not a test."""

import contextlib
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.corpus.prepare import prepare_corpus
from engram.corpus.sources import CorpusSpec
from engram.model import Transformer
from engram.tokenizer.bpe import train_bpe
from engram.training.checkpoints.files import save_final
from engramctl.results.manifest import Manifest
from engramctl.results.parquet import as_table, write_table
from engramctl.results.schema.extensions import EXTENSION_SCHEMA
from engramctl.results.schema.scores import EVAL_ITEM_SCHEMA
from engramctl.results.score_store import ScoreStore
from engramctl.results.store import Store
from tests.engramctl.made_scores import score

SWEEP, VARIANTS, TRAINED = "allocation", "variants", "tiny"
"""Sweeps of the results folder: rows alone, rows of two variants, and one with a trained model."""
_SEQ_LEN = 16


class Sandbox:
    """Folders of one case: `here` is the working directory, `precious` must never change."""

    def __init__(self, root: Path, template: Path, trial_id: str, row_id: str) -> None:
        self.root, self._template, self.trial_id, self.row_id = root, template, trial_id, row_id
        self.here = root / "here"

    def renew(self) -> None:
        """Everything as it was made."""
        if self.root.exists():
            shutil.rmtree(self.root)
        shutil.copytree(self._template, self.root, symlinks=True)

    def files(self, pattern: str) -> list[str]:
        """Files as they were made that match, relative to the root, sorted."""
        return sorted(path.relative_to(self._template).as_posix() for path in self._template.glob(pattern) if path.is_file())

    def keep(self, made: str, place: str) -> None:
        """Have a folder that a command has made in every case from now on, at another place."""
        shutil.copytree(self.root / made, self._template / place)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the process that runs the commands."""
        folders = {"HOME": "home", "TMPDIR": "tmp", "ENGRAMCTL_CACHE": "cache", "HF_HOME": "home/hf", "MPLCONFIGDIR": "home/matplotlib"}
        known = {name: value for name, value in os.environ.items() if not name.startswith(("ENGRAMCTL_", "HF_", "XDG_", "COLUMNS"))}
        known |= {name: str(self.root / folder) for name, folder in folders.items()}
        known |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1"}
        path = [str(Path(__file__).parents[3]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        return known | {"PYTHONPATH": os.pathsep.join(part for part in path if part)}


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    hung: bool
    wall_s: float
    stdout: str
    stderr: str
    written: list[str]
    """Paths that it changed anywhere on the disk, as far as Python knows."""


class Runner:
    """Runs command lines in the sandbox; see `fork_server` for what is real."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        sandbox.renew()
        self._sandbox, self._folder = sandbox, folder
        server = Path(__file__).with_name("fork_server.py")
        self._process = subprocess.Popen(
            [sys.executable, str(server)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=sandbox.environment,
            cwd=sandbox.here, stderr=(folder / "server").open("w"),
        )  # fmt: skip
        ready = json.loads(self._process.stdout.readline() or "{}")
        assert ready == {"threads": 1}, (ready, (folder / "server").read_text())
        self._add_findings()

    def _add_findings(self) -> None:
        """Look into the trained model, and keep what was found with a sweep that has something to report too."""
        model = f"{TRAINED}/{self._sandbox.trial_id}"
        for words in (
            ["memory", model],
            ["gates", model],
            ["gates", model, "the memory reads"],
            ["suppress", model],
            ["depth", model, model],
        ):
            done = self.run(["analyze", *words, "--format", "svg"])
            assert done.code == 0, done
        self._sandbox.keep(f"here/results/{TRAINED}/analysis", f"here/results/{SWEEP}/analysis")

    def run(self, arguments: list[str], timeout_s: float = 60.0) -> Outcome:
        for name in ("stdout", "stderr", "written"):
            (self._folder / name).unlink(missing_ok=True)
        words = [os.fsencode(word).hex() for word in arguments]
        request = {"arguments": words, "here": str(self._sandbox.here), "folder": str(self._folder), "timeout_s": timeout_s}
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        text = {name: (self._folder / name).read_text("utf-8", "surrogateescape") for name in ("stdout", "stderr")}
        try:
            written = json.loads((self._folder / "written").read_text())
        except FileNotFoundError:  # the process was killed
            written = []
        return Outcome(**answer, **text, written=written)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def make_template(root: Path, final: Path, row: Callable[..., dict[str, Any]], fill: Callable[..., Any]) -> Sandbox:
    """Make the sandbox that every case starts from.

    Args:
        root: where cases will run. Everything is made there, because the cache knows its files by their paths, and moved aside.
        final: where it is kept.
        row: makes a row of the trials table.
        fill: writes rows and a manifest.
    """
    here, results = root / "here", root / "here" / "results"
    for folder in ("here", "home", "tmp", "cache", "precious", "here/sweeps"):
        (root / folder).mkdir(parents=True)
    (root / "precious" / "thesis.txt").write_text("the only copy")
    _write_foreign_files(here)
    with contextlib.chdir(here):
        corpus = prepare_corpus(CorpusSpec(source="files:texts/*.txt", vocab_size=300, val_fraction=0.3), root / "cache")
    trial_id = _write_trained(results, corpus, row)
    shutil.copytree(results / TRAINED / "checkpoints" / trial_id, here / "ckpt")
    rows = [row(rho=rho, seed=seed) for rho in (0.4, 0.7, 1.0) for seed in (0, 1)]
    rows += [row(rho=0.2, status="failed"), row(rho=0.9, status="diverged")]
    store = fill(results, rows, [row(rho=0.55)], SWEEP)
    _write_findings(store, rows[0]["trial_id"])
    two = [row(rho=0.5, seed=seed, variant=label, axes=json.dumps({"gate": label}), val_loss=3 + 0.01 * seed + 0.1 * (label == "b"))
           for label in ("a", "b") for seed in (0, 1)]  # fmt: skip
    fill(results, two, (), VARIANTS, axes={"gate": {"a": {}, "b": {}}})
    shutil.move(root, final)
    return Sandbox(root, final, trial_id, rows[0]["trial_id"])


def _write_trained(results: Path, corpus: Corpus, row: Callable[..., dict[str, Any]]) -> str:
    """A sweep with one trial, whose model has drawn weights; returns its id."""
    config = ModelConfig.model_validate({
        "vocab_size": corpus.vocab_size, "width": 24, "n_layers": 3, "attention": {"kind": "mha", "n_heads": 3},
        "moe": {"n_routed_experts": 5, "top_k": 2, "expert_width": 8, "shared_width": 10},
        "memory": {"design": "engram", "layers": [0, 2], "table_sizes": [40, 50], "n_heads": 2, "memory_dim": 12},
    })  # fmt: skip
    model = Transformer(config, torch.from_numpy(corpus.compression.copy()), corpus.end_of_text_id)
    model.initialise(1)
    train = TrainConfig(steps=1, batch_size=8, seq_len=_SEQ_LEN, learning_rate=0.01, val_tokens=1024, n_validations=1)
    trial = TrialConfig(size="1m", rho=0.5, seed=0, budget_flops=1e9, model=config, train=train, **corpus.fingerprints)
    store = Store(results, TRAINED)
    store.check_writable()
    state = {"step": 1, "steps": 1, "status": "finished", "error": None}
    save_final(
        store.checkpoints / trial.id, model.state_dict(), trial.model_dump(mode="json"), state,
        (corpus.folder / "tokenizer.json").read_bytes(),
    )  # fmt: skip
    made = row(rho=0.5, seed=0, size="1m", budget=1e9) | {
        "trial_id": trial.id, "sweep": TRAINED, "corpus_fingerprint": corpus.fingerprint,
        "tokenizer_fingerprint": corpus.tokenizer_fingerprint, "config": trial.model_dump_json(),
    }  # fmt: skip
    identity = {name: made[name] for name in ("trial_id", "rho", "size", "variant", "seed", "budget_flops")}
    pinned = {"folder": corpus.folder.name, **corpus.fingerprints, "vocab_size": corpus.vocab_size}
    pinned["fingerprint"] = pinned.pop("corpus_fingerprint")
    declared = {"corpus": {"source": "files:texts/*.txt", "vocab_size": 300}}
    store.write_manifest(Manifest.model_validate({"sweep": declared, "corpus": pinned, "trials": [identity]}))
    store.write_trial(
        made,
        None,
        {"document": ["aa", "bb"], "n_tokens": [100, 28], "n_bytes": [300, 90], "loss_sum": [310.0, 88.5], "overlap": [0.0, 0.1]},
    )
    return str(trial.id)


def _write_findings(store: Store, trial_id: str) -> None:
    """A file of every further kind but the findings of `analyze`: scores, an extension, what runs, a step of training."""
    for number, rho in enumerate((0.4, 0.7)):
        rows = {name: [value] for name, value in score(trial_id=trial_id, rho=rho, seed=number).items()}
        ScoreStore(store.folder).write(f"{trial_id}.mmlu.{number:08x}.parquet", rows, filled(EVAL_ITEM_SCHEMA, trial_id))
    extension = "0123456789ab"
    table = as_table(EXTENSION_SCHEMA, {name: values[:1] for name, values in filled(EXTENSION_SCHEMA, extension).items()}, "extension")
    write_table(store.extensions / f"{extension}.parquet", table)
    host = os.uname().nodename
    store.running.write_text(json.dumps({"process": {"host": host, "pid": os.getpid(), "created": 0.0}, "trials": [trial_id]}))
    step = store.checkpoints / "0123456789cd" / "step-000000005"
    step.mkdir(parents=True)
    (step / "state.json").write_text(json.dumps({"step": 5, "steps": 10}))


def filled(schema: pa.Schema, trial_id: str) -> dict[str, list[Any]]:
    """Two rows of a table with a value of the right type in every column."""
    return {field.name: [trial_id] * 2 if "trial" in field.name else [_value(field.type, i) for i in range(2)] for field in schema}


def _value(kind: pa.DataType, i: int) -> Any:
    if pa.types.is_list(kind):
        return [_value(kind.value_type, i)] * 2
    if pa.types.is_boolean(kind):
        return True
    if pa.types.is_integer(kind):
        return i + 1
    return 0.25 * (i + 1) if pa.types.is_floating(kind) else f"name {i}"


def _write_foreign_files(here: Path) -> None:
    """What a user may have: text in several forms, a sweep file, recorded numbers, spans, a task with its data, a tokenizer."""
    words = [
        "the",
        "memory",
        "of",
        "Alan",
        "Turing",
        "reads",
        "read_block",
        "rows",
        "of",
        "a",
        "hashTable",
        "and",
        "the",
        "experts",
        "read",
        "maxNgram",
        "lines",
        "of",
        "it",
    ]
    texts = [" ".join(words[(i * 3 + j * (1 + i % 5)) % len(words)] for j in range(60)) + f" {i}" for i in range(40)]
    (here / "texts").mkdir()
    for i, text in enumerate(texts):
        (here / "texts" / f"{i:02d}.txt").write_text(text)
    lines = "".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts)).encode()
    (here / "rows.jsonl").write_bytes(lines)
    (here / "rows.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    write_table(here / "rows.parquet", pa.table({"text": texts, "n": list(range(len(texts)))}))
    (here / "text.txt").write_text(texts[0])
    (here / "spans.jsonl").write_text('{"text": "the memory reads rows", "spans": [[4, 10], [17, 21]]}\n')
    (here / "squad.json").write_text(json.dumps(_squad(texts)))
    (here / "hotpot.json").write_text(json.dumps(_hotpot(texts)))
    (here / "words.json").write_text(json.dumps(dict(enumerate(words))))
    (here / "own.yaml").write_text(_SWEEP_FILE)
    (here / "task.yaml").write_text(_TASK_FILE)
    (here / "questions.jsonl").write_text("".join(json.dumps({"question": f"is it {i}?", "answer": i % 2}) + "\n" for i in range(4)))
    data = here / "data"
    (data / "bbh").mkdir(parents=True)
    (data / "bbh" / "navigate.json").write_text(json.dumps({"examples": [{"input": f"turn {i}", "target": "Yes"} for i in range(3)]}))
    (data / "mmlu" / "test").mkdir(parents=True)
    (data / "mmlu" / "dev").mkdir()
    for split in ("test", "dev"):
        (data / "mmlu" / split / f"anatomy_{split}.csv").write_text("what is it,a,b,c,d,A\nwhere is it,e,f,g,h,D\n" * 3)
    shutil.copy(Path(__file__).parents[2] / "data" / "engram_vectors.json", here / "vectors.json")
    train_bpe(iter(texts), 300).save(str(here / "tokenizer.json"))


def _squad(texts: list[str]) -> dict[str, Any]:
    asked = [{"question": f"what is {i}?", "answers": [{"text": "rows"}], "is_impossible": False} for i in range(3)]
    return {"data": [{"title": "t", "paragraphs": [{"context": text, "qas": asked} for text in texts[:5]]}]}


def _hotpot(texts: list[str]) -> list[dict[str, Any]]:
    return [{"question": f"what is {i}?", "answer": "rows", "context": [[f"title {i}", [text]]]} for i, text in enumerate(texts[:5])]


_SWEEP_FILE = """\
question: "Does it work?"
corpus: {source: "files:texts/*.txt", vocab_size: 300}
sizes: [1m]
rhos: [0.5, 1]
seeds: 2
budgets: [1e11]
axes:
  rate: {low: {train.learning_rate: 0.001}, high: {train.learning_rate: 0.01}}
model: {branches: 1}
train: {seq_len: 16, batch_size: 8, val_tokens: 1024}
"""
_TASK_FILE = """\
task: own
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: answer
doc_to_choice: ["no", "yes"]
metric_list: [{metric: acc}]
"""


def snapshot(root: Path) -> Iterator[tuple[str, tuple[int, int, int, str]]]:
    """Every path below a folder with what tells it from another version of it."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found = os.lstat(path)
            target = os.readlink(path) if os.path.islink(path) else ""
            is_folder = os.path.isdir(path)
            yield (
                os.path.relpath(path, root),
                (found.st_mode, 0 if is_folder else found.st_size, 0 if is_folder else found.st_mtime_ns, target),
            )
