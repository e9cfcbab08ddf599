import json

import pytest
from typer.testing import CliRunner

from engramctl.cli import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(app, ["fit", *arguments, "--results", str(tmp_path)])


@pytest.fixture
def u(make_row):
    rhos = (0.0, 0.25, 0.5, 0.75, 1.0)
    return [
        make_row(r, s, budget=1e12, val_loss=3 + 0.4 * (r - 0.5) ** 2 + 0.001 * ((3 * i + s) % 4))
        for i, r in enumerate(rhos)
        for s in (0, 1)
    ]


def test_a_row_a_sentence_and_what_next(run, fill, u, tmp_path):
    fill(tmp_path, u)
    result = run()
    assert result.exit_code == 0
    head, row = result.stdout.splitlines()[:2]
    assert head.split() == ["fit", "over", "rho", "within", "0.005", "sure", "if", "smooth", "rho*", "rho*", "if", "smooth"]
    assert row.startswith("3m, 1e12 FLOPs  0.39 to 0.61")
    said = " ".join(result.stdout.split())
    assert "3m, 1e12 FLOPs: Within 0.005 nats of the best: rho 0.39 to 0.61" in said
    assert "Interior minimum shown: rho* = 0.50" in said
    assert "What a rho costs more than the best" in said
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    adds = "the same `engramctl sweep` command with --seeds 3 adds a seed"
    assert result.stderr.startswith(f"next: {adds}; `engramctl plot allocation --results")


def test_json_has_everything(run, fill, u, tmp_path):
    fill(tmp_path, u)
    data = json.loads(run("--json").stdout, parse_constant=pytest.fail)
    (fit,) = data["allocation"]
    assert data["kinds"] == ["allocation"]
    assert (fit["size"], fit["budget_flops"], fit["variant"], fit["n_seeds"]) == ("3m", 1e12, "", 2)
    assert fit["rho_star"]["low"] < fit["rho_star"]["estimate"] < fit["rho_star"]["high"]
    assert {"x", "loss", "low", "high"} == fit["band"].keys()
    assert fit["form"] in fit["cv_error"]
    assert fit["verdict"]["kind"] == "interior"


def test_too_few_points_are_reported(run, fill, make_row, tmp_path):
    fill(tmp_path, [make_row(0.5), make_row(1.0)], missing=[make_row(0.0)])
    result = run()
    assert result.exit_code == 0
    assert "3m, 8.2e12 FLOPs: " in result.stdout
    assert "1 of 3 trials have no loss" in result.stderr


def test_no_finished_trial_is_a_users_mistake(run, fill, make_row, tmp_path):
    fill(tmp_path, [make_row(status="diverged")])
    result = run()
    assert result.exit_code == 2
    assert "no finished trial (1 diverged)" in result.stderr
