import json

import pytest
import torch
from typer.testing import CliRunner

from engram.config.model import ModelConfig
from engram.scaling.accounting import count_parameters
from engram.scaling.ladder import LADDER
from engram.scaling.presets import PRESETS
from engramctl.cli import app
from engramctl.cluster.session import local_workers
from engramctl.sweep import plan
from engramctl.sweep.side_by_side import Choice


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


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


def test_workers(tmp_path):
    for given, at_once in (("3", "3 at a time"), ("auto", f"{local_workers('cpu')} at a time")):
        assert at_once in run("plan", "smoke", "--device", "cpu", "--workers", given, "--results", str(tmp_path)).stderr
    assert "x is neither auto nor a whole number from 1 up" in run("plan", "smoke", "--workers", "x", code=2).output


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(6, "6 at a time, 3 on each GPU"), "with 6 at a time"),
        (None, "`sweep` measures how many trials at a time pay on this GPU"),
    ],
)
def test_workers_on_a_gpu(tmp_path, monkeypatch, choice, said):
    monkeypatch.setattr(plan, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(plan, "guess_flops_per_s", lambda device, precision: 1e12)
    monkeypatch.setattr(plan, "resolve_precision", lambda precision, device: "bf16")
    monkeypatch.setattr(plan, "known_choice", lambda *_: choice)
    monkeypatch.setattr(plan, "local_workers", lambda device: 2)
    monkeypatch.setattr(plan.Gpus, "here", lambda device: None)
    planned = run("plan", "smoke", "--results", str(tmp_path)).stderr
    assert said in planned
    assert choice is not None or "with 2 at a time" in planned


def test_budget_too_small_for_a_step(tmp_path):
    result = run("plan", "--budget", "1000", "--results", str(tmp_path), code=2)
    assert "budget 1e+03 FLOPs is too small for one step of size 1m" in result.stderr
