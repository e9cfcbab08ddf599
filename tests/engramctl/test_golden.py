"""What must stay the same from one version to the next: trial ids, and the keys of every `--json`.

A trial's id names its files: a config that gets another id is trained again. The keys are what users' scripts read.
tests/data/golden.json holds both, and changes only together with CHANGELOG.md. Tests of slow commands compare their keys themselves.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from engram.training.trainer import Trainer
from engramctl.cli import app
from engramctl.findings.layers import LAYER_AXIS
from engramctl.results.parquet import write_row
from engramctl.results.rows.trials import SweepContext, trial_row
from engramctl.results.schema.scores import EVAL_SCHEMA
from engramctl.results.score_requests import Settings, requests_for
from engramctl.results.score_store import ScoreStore
from engramctl.results.store import Store
from engramctl.sweep.build import expand
from engramctl.sweep.files import find_sweep, load_sweep
from engramctl.sweep.score_jobs import checkpoint_jobs

TESTS = Path(__file__).parents[1]
GOLDEN = json.loads((TESTS / "data" / "golden.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.usefixtures("one_thread", "settled_process")


@pytest.mark.parametrize("case", GOLDEN["trials"], ids=lambda case: f"{case['sweep']} {json.dumps(case['changes'])}")
def test_trial_ids(case):
    spec = load_sweep(find_sweep(case["sweep"]), case["changes"])
    assert [trial.id for trial in expand(spec, [1e12], spec.corpus.vocab_size, "c", "t")] == case["ids"].split()


COMMANDS = {
    "status": "status --results REFERENCE",
    "status SWEEP": "status laptop --results REFERENCE",
    "fit over rho": "fit laptop --results REFERENCE",
    "fit over slots": "fit slots --results MADE",
    "fit layers": "fit layers --results MADE",
    "plot": "plot layers --results MADE --format png",
    "plot evals": "plot tiny --results MADE --format png --kind evals",
    "report": "report layers --results MADE",
    "compare trials": "compare laptop/2c60 laptop/7a8e --results REFERENCE",
    "compare sweeps": "compare laptop laptop --results REFERENCE",
    "plan": "plan smoke --results MADE",
    "plan of a model of the paper": "plan --size engram-27b",
    "plan of two": "plan --size engram-27b,moe-27b",
    "sweep": "sweep SPEC --results MADE --cache CACHE",
    "corpus": "corpus CORPUS",
    "verify": "verify TESTS/data/engram_vectors.json",
    "sample": "sample MEMORY the --tokens 2 --device cpu",
    "eval": "eval arc_easy --sweep tiny --results MADE --limit 1",
    "extend": "extend MEMORY --length 64 --tokens 512 --val-tokens 256 --cache CACHE --device cpu --out OUT",
    "analyze depth": "analyze depth PURE MEMORY --spans SPANS --out OUT --format png",
    "analyze gates": "analyze gates MEMORY --cache CACHE --out OUT --format png",
    "analyze gates TEXT": "analyze gates MEMORY the_model_of_words --out OUT --format png",
    "analyze suppress": "analyze suppress MEMORY --cache CACHE --out OUT --format png",
    "analyze memory": "analyze memory MEMORY --cache CACHE --out OUT --format png",
    "rm TRIAL": "rm laptop 2c60 --yes --results OUT",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory, fill, make_row, variant_rows, tiny_corpus, text_folder, cache) -> dict[str, str]:
    """What the words in capitals in COMMANDS stand for."""
    here = tmp_path_factory.mktemp("golden")
    reference = TESTS.parent / "results" / "reference"
    made = here / "made"
    slots = {n: {"n_slots": n, "p_engram": 8 * n, "p_sparse": 8 * n + 1_000_000} for n in (0, 1000, 10_000, 100_000)}
    rows = [
        make_row(1e6 / (1e6 + 8 * n), s, val_loss=3.4 - 0.02 * len(str(n)) + 0.001 * s, **at) for n, at in slots.items() for s in (0, 1)
    ]
    fill(made, rows, sweep="slots", slots=list(slots))
    layers = [row for i in (0, 1) for row in variant_rows(LAYER_AXIS, f"layers=[{i}]", [3.1 - i / 10, 3.12 - i / 10, None])]
    more = [make_row(0.7, 0, variant=layers[0]["variant"], axes=layers[0]["axes"])]
    fill(made, layers + more, layers[-1:], sweep="layers", axes={LAYER_AXIS: {label: {} for label in ("layers=[0]", "layers=[1]")}})
    spec, trained = _trained(made, here, tiny_corpus, text_folder)
    (here / "spans.jsonl").write_text('{"text": "the model of words and of models", "spans": [[4, 9], [13, 18]]}\n' * 4)
    return {
        "REFERENCE": str(reference),
        "MADE": str(made),
        "SPEC": str(spec),
        "CACHE": str(cache),
        "CORPUS": f"--corpus files:{text_folder}/*.txt --vocab-size 400 --cache {cache}",
        "SPANS": str(here / "spans.jsonl"),
        "TESTS": str(TESTS),
        "MEMORY": str(trained[0]),
        "PURE": str(trained[1]),
    }


def _trained(results: Path, here: Path, corpus: Any, text_folder: Path) -> tuple[Path, list[Path]]:
    """The sweep `tiny` of two models trained for a moment, with a made-up score; returns its file and its checkpoints."""
    declared = {
        "question": "Do keys stay?",
        "corpus": {"source": f"files:{text_folder}/*.txt", "vocab_size": 400, "val_fraction": 0.1},
        "sizes": ["1m"],
        "rhos": [0.5, 1],
        "budgets": ["1.6e9"],
        "train": {"batch_size": 8, "seq_len": 32, "val_tokens": 1024, "n_validations": 1},
    }
    file = here / "tiny.yaml"
    file.write_text(json.dumps(declared))
    store, checkpoints = Store(results, "tiny"), []
    store.check_writable()
    trials = expand(load_sweep(file, {}), [1.6e9], corpus.vocab_size, corpus.fingerprint, corpus.tokenizer_fingerprint)
    for trial in trials:
        trainer = Trainer(trial, corpus, store.checkpoints / trial.id, torch.device("cpu"))
        while not trainer.done:
            trainer.advance(60)
        trainer.outcome()
        sums = {"n_tokens": [100, 28], "n_bytes": [300, 90], "loss_sum": [300.0, 84.0]}
        documents = {"document": ["aa", "bb"], **sums, "overlap": [0.0, 0.0]}
        store.write_trial(trial_row(trial, SweepContext("tiny", "files", ""), "finished", None, {"val_loss": 3.0}), None, documents)
        checkpoints.append(store.checkpoints / trial.id)
        if _has_lm_eval():
            (job,) = checkpoint_jobs(checkpoints[-1], requests_for(["arc_easy"], None, Settings(limit=1)))
            values = {"string": "", "int64": 1, "double": 1.0, "bool": True}
            row = {field.name: values[str(field.type)] for field in EVAL_SCHEMA}
            known = {"trial_id": trial.id, "rho": trial.rho, "group": "", "length": None, "size": "1m", "variant": ""}
            row |= known | {"request": "arc_easy", "task": "arc_easy"}
            write_row(ScoreStore(job.folder).evals / job.file_name, EVAL_SCHEMA, row, job.content)
    return file, checkpoints


def _has_lm_eval() -> bool:
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        return False
    return True


def printed(arguments: list[str]) -> Any:
    """The JSON that a command prints."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output + str(result.exception)
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_keys_of_json(name, places, tmp_path, check_keys):
    if name in ("eval", "plot evals") and not _has_lm_eval():
        pytest.skip("lm-eval is not installed: pip install 'engramctl[eval]'")
    command = COMMANDS[name]
    if name.startswith("rm"):
        shutil.copytree(Path(places["REFERENCE"]) / "laptop", tmp_path / "laptop")
    for word, meaning in {**places, "OUT": str(tmp_path)}.items():
        command = command.replace(word, meaning)
    check_keys(name, printed(command.split()))
