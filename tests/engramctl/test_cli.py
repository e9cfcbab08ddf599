import subprocess
import sys

import pytest
from typer.testing import CliRunner

from engramctl.cli import app


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("command", ["corpus", "plan", "sweep", "status", "plot", "compare", "sample", "rm", "verify"])
def test_every_command_has_help_with_an_example(command):
    assert "Example: engramctl " + command in " ".join(run(command, "--help").output.replace("│", " ").split())


def test_help_loads_nothing_heavy():
    heavy = {"torch", "tokenizers", "ray", "numpy", "pandas", "pyarrow", "matplotlib", "pydantic"}
    code = f"import sys, engramctl.cli; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_program_is_a_module_too():
    shown = subprocess.run([sys.executable, "-m", "engramctl", "--help"], capture_output=True, text=True, check=True).stdout
    assert "Usage: engramctl" in shown


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "no such option: --bogus; `engramctl --help` lists what there is"),
        (["bogus"], "no such command 'bogus'; `engramctl --help` lists what there is"),
        (["bench", "bogus"], "no such command 'bogus'; `engramctl bench --help` lists what there is"),
        (["sweep", "--bogus"], "`engramctl sweep --help` lists what there is"),
        (["sweep", "--x\x1b[2J\n"], r"no such option: --x\x1b[2J"),
        (["sweep", "--workers", "0"], "invalid value for '--workers': "),
        (["sweep", "--seeds", "many"], "invalid value for '--seeds': "),
        (["sweep", "--workers"], "option '--workers' requires an argument"),
        (["sample"], "missing argument 'CHECKPOINT'; `engramctl sample --help` lists what there is"),
        (["extend", "somewhere"], "missing option '--length'"),
        (["analyze", "gates"], "missing argument 'CKPT'; `engramctl analyze gates --help` lists what there is"),
        (["status", "a", "b"], "unexpected extra argument"),
    ],
)
def test_a_command_line_that_can_t_be_read_is_one_line(arguments, message):
    result = run(*arguments, code=2)
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_a_group_alone_shows_its_help():
    for group in ([], ["bench"], ["analyze"]):
        assert "Usage: " in run(*group, code=2).output


@pytest.mark.parametrize("command", ["sweep", "corpus"])
@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({}, "*.txt", "matches no file"),
        ({"a.txt": b"fine", "b.txt": b"caf\xe9"}, "*.txt", "b.txt: byte 3 is not UTF-8"),
        ({"a.txt": b"  \n"}, "*.txt", "the corpus is empty"),
        ({"a.txt": b"one"}, "*.txt", "nothing for validation"),
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
