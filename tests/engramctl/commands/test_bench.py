"""`engramctl bench`: what it prints, not how long things take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from engram.benchmarks import transformers_model
from engramctl.cli import app

COMMANDS = ("train", "memory", "compare", "pack", "sweep")
MACHINE = {"cpu", "cores", "cpus", "threads", "device", "gpu", "pytorch", "kernels", "precision"}
RANGE = {"median", "low", "high"}


pytestmark = pytest.mark.usefixtures("settled_process")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def tiny(text_folder, cache):
    """Options that make a bench take a second or two."""
    text = ["--corpus", f"files:{text_folder}/*.txt", "--vocab-size", "400", "--cache", str(cache)]
    return [*text, "--size", "1m", "--device", "cpu"]


@pytest.fixture
def short(tiny):
    return [*tiny, "--seconds", "0.05", "--rounds", "2", "--precision", "fp32"]


@pytest.mark.parametrize("command", [*COMMANDS, "gpu"])
def test_every_command_has_help_with_an_example(command):
    output = " ".join(run(command, "--help").output.replace("│", " ").split())
    assert f"Example: engramctl bench {command}" in output
    assert "--json" in output


def test_train(short, check_keys):
    result = run("train", *short, "--rho", "0.5", "--workers", "2", "--json")
    document = json.loads(result.stdout)
    check_keys("bench train", document)
    assert set(document["machine"]) == MACHINE
    assert document["machine"]["threads"] == 1
    assert document["machine"]["precision"] == "fp32"
    assert document["setting"] == {
        "size": "1m", "optimizer": "muon", "corpus": short[1], "vocab_size": 400, "tokens_per_step": 2048, "seconds": 0.05, "rounds": 2,
        "rho": 0.5,
    }  # fmt: skip
    whole = document["step_s"]["median"]
    assert sum(part["seconds"]["median"] for part in document["parts"]) + document["other"]["seconds"] == pytest.approx(whole)
    assert {"name", "shape", "count", "dtype", "seconds", "flops"} == set(document["products"][0])
    assert document["products_share"] == pytest.approx(document["products_s"] / whole)
    assert "not norms" in document["flops_counted"]
    side = document["side_by_side"]
    assert len(side["tokens_per_s"]) == side["workers"] == 2
    assert set(side["tokens_per_s"][0]) == RANGE
    assert side["total_tokens_per_s"] == pytest.approx(sum(copy["median"] for copy in side["tokens_per_s"]))
    assert "measuring ..." in result.stderr


def test_train_as_tables(short):
    output = run("train", *short, "--optimizer", "adamw", "--rho", "1").stdout
    assert "1m, rho 1, 100 experts" in output
    assert "tokens/s" in output
    assert "kernels" in output.splitlines()[0]
    assert "whole step" in output
    assert "muon" not in output
    assert "of the step" in output


def test_pack(short, check_keys):
    document = json.loads(run("pack", *short, "--workers", "1,2", "--step-tokens", "256", "--json").stdout)
    check_keys("bench pack", document)
    assert document["tokens_per_step"] == document["setting"]["tokens_per_step"] == 256
    assert [packed["workers"] for packed in document["counts"]] == [1, 2]
    for packed in document["counts"]:
        assert len(packed["tokens_per_s"]) == packed["workers"]
        assert set(packed["together"]) == RANGE
    assert document["best"] in (1, 2)
    assert "at a time pay" in run("pack", *short, "--workers", "1", "--step-tokens", "256").stdout
    assert "numbers from 1 to 256" in run("pack", "--workers", "0", code=2).output


def test_memory(short, check_keys):
    document = json.loads(run("memory", *short, "--json").stdout)
    check_keys("bench memory", document)
    assert [case["name"] for case in document["cases"]][:4] == ["rho 1", "rho 0.75", "rho 0.25", "tables x 16"]
    assert set(document["cases"][1]["ratio"]) == RANGE
    output = run("memory", *short).stdout
    assert "distinct rows" in output
    assert "x rho 0.75" in output


def test_compare(short, monkeypatch):
    monkeypatch.setattr(transformers_model, "EXPERTS", ("grouped_mm",))
    monkeypatch.setattr(transformers_model, "DTYPES", {"fp32": torch.float32})
    options = [*short, "--table-rows", "20000"]
    document = json.loads(run("compare", *options, "--json").stdout)
    assert set(document) == {"bench", "setting", "machine", "transformers", "variants", "cases", "ratios", "tables"}
    assert [(variant["experts"], variant["dtype"]) for variant in document["variants"]] == [("grouped_mm", "fp32")]
    assert [case["name"] for case in document["cases"]] == ["sparse", "same experts, no memory", "dense", "transformers"]
    assert [(ratio["of"], ratio["against"]) for ratio in document["ratios"]] == [
        ("same experts, no memory", "transformers"), ("sparse", "transformers"), ("sparse", "dense"),
    ]  # fmt: skip
    assert set(document["tables"]["ratio"]) == RANGE
    output = run("compare", *options).stdout
    assert "x the tokens/s of transformers" in output
    assert "with dense gradients" in output


def test_gpu(tiny, tmp_path):
    """On a CPU a rehearsal, in processes of its own."""
    options = [*tiny[: tiny.index("--size")], "--device", "cpu", "--seconds", "0.05", "--rounds", "1"]
    done = run("gpu", *options, "--only", "peak,speed 1b", "--out", tmp_path / "gpu.json", "--json")
    document = json.loads(done.stdout)
    assert list(document["parts"]) == ["peak", "speed 1b"]
    assert document == json.loads((tmp_path / "gpu.json").read_text())
    assert [bar["what"] for bar in document["bars"] if bar["holds"] is not None] == ["1b, of the measured peak of products"]
    assert "a rehearsal on the CPU" in done.stderr
    assert "there is no such part; there are peak, speed 10m" in run("gpu", "--only", "other", code=2).output
    assert "can't be written: Is a directory" in run("gpu", *options, "--out", tmp_path, code=2).output


def test_sweep(tiny):
    """A real one: two trials side by side."""
    command = [str(Path(sys.executable).parent / "engramctl"), "bench", "sweep", *tiny, "--seconds", "1", "--trials", "2", "--workers", "2"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document["machine"]) == MACHINE
    assert (document["bench"], document["workers"], document["trials"], document["problems"]) == ("sweep", 2, 2, [])
    assert 0 < document["train_s"] < 2 * document["wall_s"]
    assert document["efficiency"] == pytest.approx(document["train_s"] / (2 * document["wall_s"]))
    parts = sum(document[name] for name in ("train_s", "validation_s", "waiting_s", "idle_end_s", "rest_s"))
    assert parts == pytest.approx(2 * document["wall_s"])
    assert 0 < document["startup_s"] < document["wall_s"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "7m"], "size '7m' is unknown; there are study, 1m, 3m"),
        (["--optimizer", "sgd"], "optimizer kind 'sgd' is unknown; there are adamw, muon"),
        (["--precision", "fp8"], "precision 'fp8' is unknown; use auto, bf16 or fp32"),
        (["--device", "tpu"], "device 'tpu' is unknown; use auto, cpu, cuda or cuda:N"),
        (["--corpus", "internet"], "corpus 'internet' is unknown"),
        (["--corpus-bytes", "some"], "'some' is not a size"),
    ],
)
def test_mistakes_are_one_line_and_code_2(command, arguments, message):
    result = run(command, *arguments, code=2)
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_rho_is_a_share(command, tiny):
    error = run(command, *tiny, "--rho", "2", code=2).stderr
    assert "it must be between 0 (all memory) and 1 (all experts)" in error


def test_a_comparison_needs_a_memory(short):
    assert "a model with a memory is compared" in run("compare", *short, "--rho", "1", code=2).stderr


def test_numbers_out_of_range():
    assert "--rounds" in run("train", "--rounds", "0", code=2).stderr
    assert "--seconds" in run("memory", "--seconds", "0", code=2).stderr
    assert "--trials" in run("sweep", "--trials", "0", code=2).stderr
