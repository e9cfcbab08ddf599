import json

import pytest
import typer
from typer.testing import CliRunner

from engramctl.cli import app as main
from engramctl.commands.plot import plot


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    app = typer.Typer(cls=main.info.cls, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)
    app.command("plot")(plot)
    app.command("other")(lambda: None)  # With one command alone, typer would leave out the group.
    return lambda *arguments: CliRunner().invoke(app, ["plot", *arguments, "--results", str(tmp_path)])


@pytest.fixture
def u(make_row):
    return [make_row(rho, seed, val_loss=3 + (rho - 0.6) ** 2 + 0.01 * seed) for rho in (0.0, 0.5, 0.75, 1.0) for seed in (0, 1)]


def test_table_and_files(run, fill, u, tmp_path):
    fill(tmp_path, u)
    result = run()
    assert result.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "allocation/figures").iterdir()) == [f"allocation.{kind}" for kind in ("pdf", "png", "svg")]
    (best,) = [line for line in result.stdout.splitlines() if "<- lowest mean" in line]
    assert best.startswith("0.50")
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert "no interior minimum" not in result.stdout
    assert "Trials without a loss" not in result.stdout
    assert "allocation.png, svg, pdf" in result.stderr
    assert "--seeds 3 adds a seed" in result.stderr


def test_json_is_strict_and_uses_the_column_names(run, fill, u, make_row, tmp_path):
    fill(tmp_path, [*u[:-1], make_row(1.0, 1, status="diverged")], missing=[make_row(0.9)])
    result = run("--json", "--out", str(tmp_path / "out"), "--format", "svg")
    data = json.loads(result.stdout, parse_constant=pytest.fail)
    assert data["figures"] == [str(tmp_path / "out" / "allocation.svg")]
    assert data["fits"]["kinds"] == ["allocation"]
    assert {"rho_star", "verdict", "gain"} <= data["fits"]["allocation"][0].keys()
    assert [p["rho"] for p in data["points"]] == [0.0, 0.5, 0.75, 1.0]
    assert {"size", "budget_flops", "val_loss", "n_routed_experts", "n_slots", "is_minimum"} <= data["points"][0].keys()
    assert [(m["status"], m["rho"], m["seed"]) for m in data["missing"]] == [("missing", 0.9, 0), ("diverged", 1.0, 1)]
    assert "same seeds" in data["notes"][0]["note"]
    assert data["left_out"] == []


def test_what_did_not_finish_is_listed(run, fill, u, make_row, tmp_path):
    fill(tmp_path, [*u, make_row(0.9, 0, status="failed"), make_row(0.9, 1, status="diverged")], missing=[make_row(0.95, 1)])
    result = run()
    listed = result.stdout.split("Trials without a loss")[1]
    assert [line.split()[0] for line in listed.splitlines()[2:5]] == ["missing", "diverged", "failed"]
    assert "1 diverged, 1 failed" in result.stdout
    assert "runs the 2 missing or failed trials" in result.stderr


def test_an_end_and_a_single_seed_are_pointed_out(run, fill, make_row, tmp_path):
    fill(tmp_path, [make_row(rho, val_loss=4 - rho) for rho in (0.0, 0.5, 1.0)])
    stdout = run().stdout
    assert "! no interior minimum shown: lowest mean at rho = 1.00" in stdout
    assert "! one seed" in stdout


def test_trials_of_an_earlier_version_of_the_sweep_are_left_out_and_counted(run, fill, u, make_row, tmp_path):
    store = fill(tmp_path, u)
    store.write_trial(make_row(0.5, 0, learning_rate=1.0, val_loss=0.1), None, None)
    result = run()
    assert "left out: 1 trial of" in result.stderr
    assert "0.1000" not in result.stdout


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_no_finished_trial_is_a_users_mistake(run, fill, make_row, tmp_path, status):
    fill(tmp_path, [make_row(status=status)], missing=[make_row(0.2)])
    result = run()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"no finished trial (1 missing, 1 {status})" in result.stderr
    assert result.stderr.count("\n") == 1


def test_every_kind_that_applies_is_drawn_or_the_one_that_was_asked_for(run, fill, u, make_row, tmp_path):
    fill(tmp_path, u + [row | make_row(row["rho"], row["seed"], budget=4e13, val_loss=row["val_loss"] - 0.3) for row in u])
    assert "drift.png" in run("--format", "png").stderr
    assert sorted(p.name for p in (tmp_path / "allocation/figures").iterdir()) == ["allocation.png", "drift.png"]
    run("--kind", "drift", "--format", "pdf", "--out", str(tmp_path / "one"))
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["drift.pdf"]
    refused = run("--kind", "layers")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: --kind layers does not apply to sweep 'allocation': model.memory.layers is not one of its axes;"
        " what applies: allocation, drift\n"
    )
    assert run("--format", "gif").exit_code == 2


def test_variants_have_a_table_of_their_differences(run, fill, variant_rows, tmp_path):
    fill(tmp_path, variant_rows("part", "full", [3.0, 3.1]) + variant_rows("part", "no gate", [3.05, 3.15]), axes={"part": {}})
    result = run("--format", "png")
    assert (tmp_path / "allocation/figures/variants.png").is_file()
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("no gate")]
    assert line.split()[2:5] == ["0.50", "3.1000", "+0.0500"]
    assert "lowest mean" not in result.stdout


def test_slots_have_tables_over_slots(run, fill, make_row, tmp_path):
    slots = (0, 1000, 10_000, 100_000)
    rows = [make_row(1e6 / (1e6 + 8 * n), n_slots=n, val_loss=3.4 - (n > 0) * 0.02 * len(str(n))) for n in slots]
    fill(tmp_path, rows, slots=list(slots))
    stdout = run("--format", "png").stdout
    assert [line.split()[0] for line in stdout.splitlines()[2:6]] == ["0", "1k", "10k", "100k"]
    assert "Ten times the slots change loss by -0.0199 nats" in stdout
    assert "one seed" not in stdout


def test_trials_whose_documents_are_gone_are_drawn_without_a_fit(run, fill, u, tmp_path):
    store = fill(tmp_path, u)
    for path in store.documents.iterdir():
        path.unlink()
    result = run("--format", "png")
    assert result.exit_code == 0
    assert "no fits: trial" in result.stderr
    assert (store.figures / "allocation.png").is_file()


def test_two_trials_at_one_point_are_refused(run, fill, u, make_row, tmp_path):
    fill(tmp_path, [*u, make_row(0.5, 0, learning_rate=1.0)])
    result = run()
    assert result.exit_code == 2
    assert "they differ in learning_rate" in result.stderr


def test_no_such_sweep(run, fill, u, tmp_path):
    fill(tmp_path, u)
    result = run("nope")
    assert result.exit_code == 2
    assert "there are: allocation" in result.stderr
