import json
import os
import re
import shlex

import pytest
import typer
from typer.testing import CliRunner

from engramctl.cli import app as main
from engramctl.commands.status import status
from engramctl.results.liveness import RunningTrials


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    app = typer.Typer(cls=main.info.cls, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)
    app.command("status")(status)
    app.command("other")(lambda: None)  # With one command alone, typer would leave out the group.
    return lambda *arguments: CliRunner().invoke(app, ["status", *arguments, "--results", str(tmp_path)])


@pytest.fixture
def mixed(fill, make_row, tmp_path):
    rows = [make_row(0.0), make_row(0.5, status="diverged"), make_row(1.0, status="failed", error="Traceback\n  x\nMemoryError: no room")]
    return fill(tmp_path, rows, missing=[make_row(0.25), make_row(0.75)])


def test_all_sweeps_a_line_each(run, fill, make_row, mixed, tmp_path):
    fill(tmp_path, [], missing=[make_row()], sweep="fresh")
    lines = run().stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["allocation", "1", "1", "1", "0", "2", "8.2e12", "2025-01-01", "10:01"],
        ["fresh", "0", "0", "0", "0", "1", "8.2e12", "-"],
    ]
    assert max(len(line) for line in lines) <= 80
    overview = json.loads(run("--json").stdout)
    assert overview[0] == {
        "sweep": "allocation", "n_finished": 1, "n_diverged": 1, "n_failed": 1, "n_running": 0, "n_missing": 2, "n_left_out": 0,
        "budget_flops": [8.2e12], "finished_at": "2025-01-01T10:01:02Z",
    }  # fmt: skip
    assert overview[1]["finished_at"] is None


def test_one_sweep_with_progress_and_errors(run, mixed, make_row):
    checkpoint = mixed.checkpoints / make_row(0.25)["trial_id"]
    for name, state in (("old", '{"step": 100, "steps": 1000}'), ("new", '{"step": 470, "steps": 1000}'), ("torn", '{"st')):
        (checkpoint / name).mkdir(parents=True)
        (checkpoint / name / "state.json").write_text(state)
    result = run("allocation")
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["3m", "8.2e12", "1", "1", "1", "0", "2"]
    grid = [line.split() for line in lines if line.startswith(("seed", "0 "))]
    assert dict(zip(*grid, strict=True)) == {"seed": "0", "0.00": "●", "0.25": "47%", "0.50": "x", "0.75": "·", "1.00": "!"}
    assert "MemoryError: no room" in result.stdout
    assert "Traceback" not in result.stdout
    assert "engramctl sweep allocation" in result.stderr
    data = json.loads(run("allocation", "--json").stdout, parse_constant=pytest.fail)
    by_rho = {t["rho"]: t for t in data["trials"]}
    assert (by_rho[0.25]["status"], by_rho[0.25]["step"], by_rho[0.25]["steps"]) == ("missing", 470, 1000)
    assert by_rho[1.0]["error"].startswith("Traceback")
    assert by_rho[0.75]["val_loss"] is None
    assert data["n_missing"] == 2


def test_running_trials_have_a_mark_of_their_own(run, mixed, make_row):
    ids = {rho: make_row(rho)["trial_id"] for rho in (0.0, 0.25, 0.75)} | {1.0: mixed.read_trials().query("rho == 1")["trial_id"].iloc[0]}
    checkpoint = mixed.checkpoints / ids[0.25] / "step-470"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text('{"step": 470, "steps": 1000}')
    with RunningTrials(mixed) as running:
        # 0 was finished by this run, 1.0 failed in an earlier one.
        for rho in (0.0, 0.25, 1.0):
            running.note(ids[rho], runs=True)
        result = run("allocation")
        lines = result.stdout.splitlines()
        assert lines[1].split() == ["3m", "8.2e12", "1", "1", "0", "2", "1"]
        grid = [line.split() for line in lines if line.startswith(("seed", "0 "))]
        assert dict(zip(*grid, strict=True)) == {"seed": "0", "0.00": "●", "0.25": "◐47%", "0.50": "x", "0.75": "·", "1.00": "◐"}
        assert "◐ running" in result.stdout
        assert f"process {os.getpid()} on " in result.stderr
        assert "next" not in result.stderr
        data = json.loads(run("allocation", "--json").stdout)
        assert (data["n_running"], data["n_failed"], data["n_missing"]) == (2, 0, 1)
        assert {t["rho"] for t in data["trials"] if t["status"] == "running"} == {0.25, 1.0}
        assert run().stdout.splitlines()[1].split()[:6] == ["allocation", "1", "1", "0", "2", "1"]
    assert "next: `engramctl sweep" in run("allocation").stderr


def test_variants_are_named(run, fill, make_row, tmp_path):
    fill(tmp_path, [make_row(0.5), make_row(0.5, variant="learning_rate=0.01")], missing=[make_row(0.75, variant="learning_rate=0.01")])
    lines = run("allocation").stdout.splitlines()
    assert lines[0].split()[:2] == ["variant", "size"]
    assert lines[1].split() == ["3m", "8.2e12", "1", "0", "0", "0", "0"]
    assert lines[2].split() == ["learning_rate=0.01", "3m", "8.2e12", "1", "0", "0", "0", "1"]
    assert "learning_rate=0.01, 3m, 8.2e12 FLOPs" in lines


def test_a_complete_sweep_points_to_the_plot(run, fill, make_row, tmp_path):
    fill(tmp_path, [make_row(rho) for rho in (0.0, 1.0)])
    assert "engramctl plot allocation" in run("allocation").stderr


def test_many_rhos_fit_the_terminal(run, fill, make_row, tmp_path):
    rhos = [i / 40 for i in range(41)]
    fill(tmp_path, [], missing=[make_row(rho, seed) for rho in rhos for seed in (0, 1)])
    lines = run("allocation").stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert sum(line.count("·") for line in lines if line.startswith(("0 ", "1 "))) == 82


def test_rows_without_a_manifest_still_count(run, fill, make_row, tmp_path):
    fill(tmp_path, [make_row(0.5)]).manifest.unlink()
    assert json.loads(run("allocation", "--json").stdout)["n_finished"] == 1


def test_mistakes(run, mixed, tmp_path):
    assert "there are: allocation" in run("nope").stderr
    next(mixed.trials.glob("*.parquet")).write_bytes(b"x")
    result = run("allocation")
    assert result.exit_code == 2
    assert ".parquet can't be read" in result.stderr


def test_an_empty_folder_is_no_mistake(run):
    result = run()
    assert result.exit_code == 0
    assert "no sweeps" in result.stderr
    assert json.loads(run("--json").stdout) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"schema_version": 1}', "schema version 1"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"schema_version": 5, "trials": "abc"}', "trials: 'abc' is not allowed"),
        ('{"schema_version": 5, "trials": [{"trial_id": "0123456789ab", "size": "1m"}]}', "trials.0.budget_flops: this field is required"),
        ('{"schema_version": 5, "budgets": {"20m": NaN}}', "budgets.20m"),
    ],
)
def test_a_sweep_that_cannot_be_read_does_not_hide_the_others(run, fill, make_row, mixed, tmp_path, content, why):
    fill(tmp_path, [make_row()], sweep="broken").manifest.write_text(content)
    result = run()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[0] == "allocation"
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("broken")]
    assert line.startswith("broken  unreadable: ")
    assert why in line
    readable, broken = json.loads(run("--json").stdout)
    assert (readable["sweep"], readable["n_finished"]) == ("allocation", 1)
    assert "unreadable" not in readable
    assert why in broken["unreadable"]
    assert broken.keys() - readable.keys() == {"unreadable"}
    assert readable.keys() <= broken.keys()
    assert run("broken").exit_code == 2


def test_the_line_repeats_what_continues_the_sweep(run, mixed, make_row):
    manifest = mixed.read_manifest()
    assert manifest is not None
    first, second = ("sweep", "allocation", "--size", "3m", "--budget", "2h"), ("sweep", "allocation", "--axis", "model.x=[1, 2]")
    asked = {make_row(0.25)["trial_id"]: 0, make_row(0.75)["trial_id"]: 1}
    trials = [trial.model_copy(update={"asked_by": asked.get(trial.trial_id, 0)}) for trial in manifest.trials or ()]
    mixed.write_manifest(manifest.model_copy(update={"trials": tuple(trials), "commands": (first, second)}))
    said = " ".join(run("allocation").stderr.split())
    one, two = f"`engramctl {' '.join(first[:])} --results {mixed.results}`", f"'model.x=[1, 2]' --results {mixed.results}`"
    assert f"next: {one} and " in said
    assert f"{two} continue it" in said
    only = [trial for trial in trials if trial.trial_id != make_row(0.75)["trial_id"]]
    mixed.write_manifest(manifest.model_copy(update={"trials": tuple(only), "commands": (first, second)}))
    assert f"next: {one} continues it" in run("allocation").stderr


def test_the_legend_is_no_measurement(run, mixed):
    assert "NN% trained so far" in run("allocation").stdout


def test_printed_commands_are_quoted(fill, make_row, tmp_path):
    fill(tmp_path / "s p", [make_row(rho) for rho in (0.0, 1.0)], sweep="my sweep")
    said = CliRunner().invoke(main, ["status", "my sweep", "--results", str(tmp_path / "s p")]).stderr
    (typed,) = re.findall("`(.*)`", said)
    assert shlex.split(typed) == ["engramctl", "plot", "my sweep", "--results", str(tmp_path / "s p")]
