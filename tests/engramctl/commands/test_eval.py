"""Benchmark scores of trained models through the command, with a real Ray: score, stop, go on, look."""

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
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'engramctl[eval]'")

from engramctl.cli import app
from engramctl.results.schema.scores import EVAL_COLUMNS, EVAL_ITEM_COLUMNS

ENGRAMCTL = Path(sys.executable).parent / "engramctl"
CHOICES = 6


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([ENGRAMCTL, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stderr
    return result


@pytest.fixture(scope="module")
def results(text_folder, cache, tmp_path_factory):
    """A sweep of two trials with their checkpoints."""
    folder = tmp_path_factory.mktemp("eval")
    spec = {
        "question": "What do they know?",
        "corpus": {"source": f"files:{text_folder}/*.txt", "vocab_size": 400, "val_fraction": 0.1},
        "sizes": ["1m"],
        "rhos": [0.5, 1],
        "budgets": ["1e10"],
        "train": {"val_tokens": 2048, "n_validations": 1},
    }
    (folder / "tiny.yaml").write_text(json.dumps(spec))
    run("sweep", folder / "tiny.yaml", "--cache", cache, "--results", folder / "results")
    return folder / "results"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {
            "id": str(i),
            "question": f"Which letter has number {i}?",
            "choices": {"text": ["aa", "bb", "cc"], "label": ["A", "B", "C"]},
            "answerKey": "ABC"[i % 3],
        }
        for i in range(CHOICES)
    ]
    for name in ("ARC-Easy", "ARC-Challenge"):
        for split in ("train", "validation", "test"):
            (folder / f"{name}_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def scored(results, data):
    arguments = ["eval", "arc_easy", "ruler:fwe", "--sweep", "tiny", "--results", results, "--data", data, "--offline"]
    arguments += ["--limit", "4", "--lengths", "2048"]
    return arguments, run(*arguments)


@pytest.fixture(scope="module")
def other(results, data, scored):
    """Scores of the best trial on three items, in addition."""
    settings = ["--data", data, "--offline", "--limit", "3", "--best", "--json"]
    return json.loads(run("eval", "arc_easy", "--sweep", "tiny", "--results", results, *settings).stdout)["scores"]


def files(results: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (results / "tiny" / "evals").glob("*.parquet")}


def test_scores_of_a_sweep(results, scored):
    _, done = scored
    table = done.stdout.splitlines()
    assert table[0].split() == ["task", "metric", "rho", "seed", "score", "+-", "chance", "bits/byte", "items", "truncated"]
    assert [line.split()[0] for line in table[1:5]] == ["arc_easy", "arc_easy", "fwe", "fwe"]
    assert "lost their beginning: the models read 64 tokens at a time" in done.stdout
    assert f"next: `engramctl plot tiny --results {results} --kind evals`" in done.stderr
    scores = pd.read_parquet(results / "tiny" / "evals")
    assert list(scores.columns) == [column.name for column in EVAL_COLUMNS]
    arc = scores[scores["task"] == "arc_easy"]
    assert sorted(arc["rho"]) == [0.5, 1]
    assert arc["chance"].tolist() == pytest.approx([100 / 3] * 2)
    assert arc["is_percent"].all()
    assert (arc["n"] == 4).all()
    assert arc["score"].isin([0, 25, 50, 75, 100]).all()
    assert (arc["tokens_run"] < arc["tokens_asked"]).all(), "the three choices of a question share it"
    assert (scores.loc[scores["task"] == "fwe", "length"] == 2048).all()
    for name in files(results):
        items = pd.read_parquet(results / "tiny" / "eval_items" / name)
        assert list(items.columns) == [column.name for column in EVAL_ITEM_COLUMNS]
        assert len(items) == 4
        row = scores[(scores["trial_id"] == name.split(".")[0]) & (scores["task"] == items["task"].iloc[0])].iloc[0]
        assert items["score"].mean() == pytest.approx(row["score"])
        assert items["bpb"].mean() == pytest.approx(row["bpb"])
    of_arc = [results / "tiny" / "eval_items" / name for name in sorted(files(results)) if "arc" in name]
    hashes = [pd.read_parquet(path)["doc_hash"].tolist() for path in of_arc]
    assert hashes[0] == hashes[1], "two trials are asked the same"


def test_nothing_is_scored_twice(results, scored):
    arguments, first = scored
    before = files(results)
    again = run(*arguments)
    assert "4 of 4 scored already" in again.stderr
    assert "Ray" not in again.stderr
    assert again.stdout == first.stdout
    assert files(results) == before


def test_the_best_trial(results, other):
    (row,) = other
    assert (row["n"], row["task"], row["limit"]) == (3, "arc_easy", 3)
    losses = pd.read_parquet(results / "tiny" / "trials").set_index("trial_id")["val_loss"]
    assert row["trial_id"] == losses.idxmin()


def test_the_figure_takes_comparable_scores(results, other):
    drawn = CliRunner().invoke(app, ["plot", "tiny", "--results", str(results), "--kind", "evals", "--json"])
    assert drawn.exit_code == 0, drawn.output
    assert "arc_easy: scores with other settings are left out; shown: 4 items" in drawn.stderr
    shown = json.loads(drawn.stdout)
    assert [(row["task"], row["n"]) for row in shown["evals"]] == [("arc_easy", 4)] * 2 + [("fwe", 4)] * 2
    paths = [Path(path) for path in shown["figures"]]
    assert [path.name for path in paths] == ["evals.png", "evals.svg", "evals.pdf"]
    assert Image.open(paths[0]).width > 500
    page = CliRunner().invoke(app, ["report", "tiny", "--results", str(results)])
    assert page.exit_code == 0, page.output
    html = (results / "tiny" / "report.html").read_text()
    assert "Benchmarks" in html
    assert "Figure: evals" in html
    assert "arc_easy" in html


def test_a_killed_run_goes_on_where_it_was(results, data, tmp_path):
    shutil.copytree(results / "tiny", tmp_path / "tiny", ignore=shutil.ignore_patterns("evals", "eval_items"))
    arguments = ["eval", "arc_easy", "arc_challenge", "ruler:fwe", "--sweep", "tiny", "--results", tmp_path, "--data", data, "--offline"]
    arguments += ["--workers", "1", "--lengths", "2048", "--limit", "4"]
    driver = subprocess.Popen([ENGRAMCTL, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not files(tmp_path):
        assert time.monotonic() < deadline
        assert driver.poll() is None, driver.stderr.read()
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(3)  # workers see within two seconds that the driver is gone
    before = files(tmp_path)
    assert 0 < len(before) < 6
    again = run(*arguments)
    assert f"{len(before)} of 6 scored already" in again.stderr
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before, "a finished task was scored again"
    assert len(after) == 6


def test_changed_data_is_scored_anew_and_moved_data_is_not(results, data, tmp_path):
    trial = shutil.copytree(next((results / "tiny" / "checkpoints").iterdir()), tmp_path / "model")
    here, there = shutil.copytree(data, tmp_path / "here"), tmp_path / "there"

    def scored_already(folder):
        done = run("eval", "arc_easy", "--checkpoint", trial, "--data", folder, "--offline", "--limit", "2")
        return "1 of 1 scored already" in done.stderr

    assert not scored_already(here)
    here.rename(there)
    assert scored_already(there)
    file = there / "ARC-Easy_test.jsonl"
    file.write_text(file.read_text().replace("aa", "dd"))
    assert not scored_already(there)
    assert len(list((trial / "evals").iterdir())) == 2
    weights = trial / "final" / "weights.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights)
    anew = run("eval", "arc_easy", "--checkpoint", trial, "--data", there, "--offline", "--limit", "2")
    assert "1 scored anew: the scores there are of other weights or another version of this program" in anew.stderr
    assert len(list((trial / "evals").iterdir())) == 2, "they take the place of the old ones"
    assert scored_already(there)


@pytest.mark.usefixtures("settled_process")
def test_what_shared_prefixes_save(results, data):
    trial = next((results / "tiny" / "checkpoints").iterdir())
    arguments = ["bench", "eval", "arc_easy", "--checkpoint", str(trial), "--data", str(data), "--offline", "--limit", "3", "--json"]
    measured = CliRunner().invoke(app, arguments)
    assert measured.exit_code == 0, measured.output
    found = json.loads(measured.stdout)
    assert found["n_requests"] == 3 * 3
    assert found["tokens_alone"] > found["tokens_shared"] > 0
    assert found["largest_difference"] < 1e-4
    assert found["machine"]["precision"] == "fp32"
    arguments[2:3], arguments[-1:] = ["bbh_cot_fewshot_navigate"], []
    (data / "navigate_test.jsonl").write_text(json.dumps({"input": "Is it?", "target": "Yes"}) + "\n")
    written = CliRunner().invoke(app, arguments)
    assert written.exit_code == 2
    assert "the task has no choices to score" in " ".join(written.stderr.split())


def test_a_checkpoint_by_itself(results, data, tmp_path):
    trial = next((results / "tiny" / "checkpoints").iterdir())
    alone = shutil.copytree(trial, tmp_path / "model")
    run("eval", "arc_easy", "--checkpoint", alone, "--data", data, "--offline", "--limit", "2")
    (name,) = [path.name for path in (alone / "evals").iterdir()]
    assert name.startswith(f"{trial.name}.arc_easy.")
    assert len(pd.read_parquet(alone / "eval_items" / name)) == 2
    run("eval", "arc_easy", "--checkpoint", trial / "final", "--data", data, "--offline", "--limit", "4", "--results", tmp_path)
    assert not (trial / "evals").exists(), "scores of a sweep's trial belong to the sweep"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mmlu", "--sweep", "nothing"], "sweep 'nothing' has no results in"),
        (["mmlu", "--sweep", "tiny", "--rho", "0.7"], "--rho 0.7: sweep 'tiny' has no finished trial of it; it has 0.50, 1.00"),
        (["mmlu", "--sweep", "tiny", "--seed", "0,x"], "--seed: x is not a whole number"),
        (["mmlu", "--checkpoint", "/nothing"], "checkpoint /nothing does not exist"),
        (["mmlu", "--checkpoint", "/nothing", "--best"], "--checkpoint is one model"),
        (["mmlu", "--sweep", "tiny", "--data", "/nothing"], "--data /nothing does not exist"),
        (["ruler", "--sweep", "tiny", "--haystack", "/nothing"], "--haystack /nothing does not exist"),
        (["ruler:nothing", "--sweep", "tiny"], "there is no task ruler:nothing; ruler is all of ruler:niah_single_1, "),
        (["ruler", "--sweep", "tiny", "--lengths", "64"], "--lengths: 64 is too short; RULER's samples have 256 tokens or more"),
        (["mmlu", "--sweep", "tiny", "--lengths", "512"], "--lengths is of ruler, which is not among the tasks"),
    ],
)
def test_mistakes_are_one_line_and_code_2(results, arguments, message):
    result = CliRunner().invoke(app, ["eval", *arguments, "--results", str(results)])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_task_without_data_ends_the_command_in_one_line(results, data):
    result = run("eval", "mmlu_anatomy", "--sweep", "tiny", "--results", results, "--data", data, "--offline", "--rho", "1", code=2)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: task mmlu_anatomy: its data set cais/mmlu/anatomy is not here")
    assert "Traceback" not in result.stderr


def test_plot_without_scores(fill, make_row, tmp_path):
    fill(tmp_path, [make_row(rho=rho) for rho in (0, 0.5, 1)])
    result = CliRunner().invoke(app, ["plot", "allocation", "--results", str(tmp_path), "--kind", "evals"])
    assert result.exit_code == 2
    makes = f"`engramctl eval mmlu --sweep allocation --results {tmp_path}` makes some"
    assert f"has no benchmark scores; {makes}" in " ".join(result.stderr.split())
