import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engram.config.model import ModelConfig
from engram.scaling.accounting import count_parameters
from engram.scaling.ladder import LADDER
from engram.scaling.presets import PRESETS
from engramctl.cli import app

DATA = Path(__file__).parents[1] / "data"


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("command", ["corpus", "plan", "sweep", "status", "plot", "compare", "sample", "rm", "verify"])
def test_every_command_has_help_with_an_example(command):
    assert "Example: engramctl " + command in " ".join(run(command, "--help").output.replace("│", " ").split())


def test_help_loads_nothing_heavy():
    heavy = {"torch", "ray", "numpy", "pandas", "pyarrow", "matplotlib", "pydantic"}
    code = f"import sys, engramctl.cli; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_program_is_a_module_too():
    shown = subprocess.run([sys.executable, "-m", "engramctl", "--help"], capture_output=True, text=True, check=True).stdout
    assert "Usage: engramctl" in shown


@pytest.mark.parametrize("size", LADDER)
def test_plan_keeps_totals_equal_and_spends_nothing(size, tmp_path):
    rhos = "0,0.1,0.25,0.4,0.55,0.7,0.75,0.8,0.9,0.97,1"
    result = run("plan", "--size", size, "--rho", rhos, "--budget", "1e20", "--results", str(tmp_path), "--json")
    trials = json.loads(result.stdout)["trials"]
    assert len(trials) == 11
    for column in ("p_total", "p_active"):
        values = [trial[column] for trial in trials]
        assert (max(values) - min(values)) / min(values) <= 0.005
    for trial in trials:
        assert trial["p_total"] == trial["p_active"] + trial["p_sparse"]
        assert trial["p_embedding"] == 2 * trial["vocab_size"] * trial["width"]
        assert trial["train_flops"] == pytest.approx(1e20, rel=0.01)
        assert trial["estimated_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_plan_as_a_table(tmp_path):
    output = run("plan", "--budget", "1e12,2e12", "--seeds", "2", "--results", str(tmp_path)).output
    assert "1m: 1e+12 FLOPs" in output
    assert "1m: 2e+12 FLOPs" in output
    assert "32 of 32 trials to train" in output
    assert max(map(len, output.splitlines())) <= 140


def test_plan_of_a_wall_time_says_that_it_guesses(tmp_path):
    assert "the sweep times a few steps and decides" in run("plan", "--budget", "10m", "--results", str(tmp_path)).output


@pytest.mark.parametrize("command", ["sweep", "plan"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "sweep 'nosuch' is unknown; there are allocation, components, designs"),
        (["--size", "7m"], "size '7m' is unknown; the ladder has 1m, 3m"),
        (["--rho", "0.5,1.2"], "rho is 1.2; it must be between 0"),
        (["--rho", "half"], "--rho: 'half' is not a number"),
        (["--rho", ""], "rhos: "),
        (["--budget", "cheap"], "budget 'cheap' is neither FLOPs"),
        (["--budget", "-5"], "budget '-5' is neither FLOPs"),
        (["--corpus", "internet"], "corpus 'internet' is unknown; allowed are python, files:GLOB or hf:NAME"),
        (["--corpus-bytes", "some"], "'some' is not a size"),
        (["--device", "tpu"], "device 'tpu' is unknown; use auto, cpu, cuda or cuda:N"),
        (["--set", "branches=4"], "--set branches=4: a field below model or train and its value are expected"),
        (["--set", "model.branches"], "--set model.branches: a field below model or train"),
        (["--set", "model.branches=four"], "model.branches: 'four' is not allowed"),
        (["--set", "model.branches=[1"], "--set model.branches=[1: '[1' is not a value"),
        (["--set", "model.memory=value", "--set", "model.memory.design=value"], "memory was set to a value before"),
        (["--set", "model.memory.design=ngram"], "memory design 'ngram' is unknown; there are engram, engram-v4.1, over-encoding, value"),
        (["--set", "train.optimizer.kind=sgd"], "optimizer kind 'sgd' is unknown; there are adamw, muon"),
    ],
)
def test_mistakes_are_one_line_and_code_2(command, arguments, message, tmp_path):
    result = run(command, *arguments, "--results", str(tmp_path / "results"), code=2)
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_fields_are_set_from_the_command_line(tmp_path):
    options = ["--set", "model.memory.design=value", "--set", "model.branches=2", "--set", "train.optimizer.kind=adamw", "--rho", "0.5"]
    (trial,) = json.loads(run("plan", *options, "--budget", "1e12", "--results", str(tmp_path), "--json").stdout)["trials"]
    assert (trial["memory_design"], trial["branches"], trial["optimizer"]) == ("value", 2, "adamw")


def test_a_plan_says_what_is_not_the_default(tmp_path):
    options = ["--set", "model.memory.design=value", "--set", "model.branches=2", "--set", "model.attention.kind=mla"]
    output = run("plan", *options, "--budget", "1e12", "--results", str(tmp_path)).output
    assert "1m (value, 2 branches, mla): 1e+12 FLOPs" in output


@pytest.mark.parametrize("name", PRESETS)
def test_plan_counts_the_papers_models(name):
    model = json.loads(run("plan", "--size", name, "--json").stdout)
    counts = count_parameters(PRESETS[name])
    for total in ("p_total", "p_active", "p_sparse", "p_embedding", "p_engram", "rho"):
        assert model[total] == getattr(counts, total)
    active_parts = ("routed_experts_active", "memory_rows_active")
    assert sum(n for group, n in model["groups"].items() if group not in active_parts) == counts.p_total + counts.p_embedding
    assert ModelConfig.model_validate(model["config"]) == PRESETS[name]


def test_plan_shows_the_papers_models_side_by_side():
    output = run("plan", "--size", "moe-27b,engram-27b").output
    assert "5,792,338,560" in output
    assert "0.7432" in output
    assert max(map(len, output.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--size", "engram-27b", "--rho", "0.5"], "engram-27b is a model of the paper, counted as it stands"),
        (["plan", "--size", "engram-27b,3m"], "can't be combined with other sizes"),
        (["sweep", "--size", "moe-27b"], "moe-27b is a model of the paper: `engramctl plan --size moe-27b` counts it"),
    ],
)
def test_the_papers_models_are_not_sizes_to_allocate(arguments, message):
    assert message in run(*arguments, code=2).stderr


def test_budget_too_small_for_a_step(tmp_path):
    result = run("plan", "--budget", "1000", "--results", str(tmp_path), code=2)
    assert "budget 1e+03 FLOPs is too small for one step of size 1m" in result.stderr


@pytest.mark.parametrize("command", ["sweep", "corpus"])
@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({}, "*.txt", "matches no file"),
        ({"a.txt": b"fine", "b.txt": b"caf\xe9"}, "*.txt", "b.txt: byte 3 is not UTF-8"),
        ({"a.txt": b"  \n"}, "*.txt", "the corpus is empty"),
        ({"a.txt": b"one"}, "*.txt", "none of them fell to"),
        ({"a.jsonl": b'{"body": "x"}\n'}, "*.jsonl", "a.jsonl: line 1 has no column 'text'; it has 'body'"),
    ],
)
def test_text_that_can_t_be_used(command, files, source, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    options = ["--corpus", f"files:{tmp_path}/{source}", "--cache", str(tmp_path / "cache"), "--vocab-size", "300"]
    if command == "sweep":
        options += ["--results", str(tmp_path / "results"), "--budget", "1e12"]
    result = run(command, *options, code=2)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_results_that_can_t_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = run("sweep", "--results", str(tmp_path / "file" / "results"), code=2)
    assert "can't be written" in result.stderr


def test_results_of_another_schema(tmp_path):
    (tmp_path / "allocation" / "trials").mkdir(parents=True)
    (tmp_path / "allocation" / "sweep.json").write_text('{"schema_version": 99}')
    for command in ("sweep", "plan", "plot", "status"):
        assert "schema version 99" in run(command, "allocation", "--results", str(tmp_path), code=2).stderr


def test_verify(tmp_path):
    file = DATA / "engram_vectors.json"
    parts = json.loads(run("verify", str(file), "--json").stdout)
    assert parts["ok"]
    assert all(part["largest"] <= 1e-9 for part in parts["parts"])
    vectors = json.loads(file.read_text())
    vectors["fusion"][0]["gates"][0][0][0] += 1e-6
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(vectors))
    assert "MISMATCH" in run("verify", str(broken), code=1).stdout
    del vectors["fusion"][0]["gates"]
    broken.write_text(json.dumps(vectors))
    assert "fusion[0]: gates is missing" in run("verify", str(broken), code=2).stderr
    broken.write_text("{}")
    assert "is not a vector file" in run("verify", str(broken), code=2).stderr
    broken.write_text("{")
    assert "is not JSON" in run("verify", str(broken), code=2).stderr
    assert "can't be read" in run("verify", str(tmp_path / "none.json"), code=2).stderr
