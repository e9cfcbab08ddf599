"""What continues a sweep, as it was typed."""

import re
import shlex
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from engram.errors import UserError
from engramctl.cli import app
from engramctl.commands import next_step
from engramctl.commands.sweep import _report
from engramctl.findings.advice import advice
from engramctl.results.store import Store
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import Series
from engramctl.sweep import run as sweep_run
from engramctl.sweep.continuation import updated_manifest, with_trials


@pytest.fixture
def asked(monkeypatch):
    """Runs `engramctl sweep` up to the point where it would start, and gives its SweepRun."""
    kept = []

    def stopped(run, cache):
        kept.append(run)
        raise UserError("stopped here")

    monkeypatch.setattr(sweep_run, "run_sweep", stopped)

    def call(*arguments):
        result = CliRunner().invoke(app, ["sweep", *arguments])
        assert result.exit_code == 2, result.output
        assert "stopped here" in result.stderr
        return kept[-1]

    return call


def test_words_are_those_typed_without_the_folder(asked, tmp_path):
    words = ["smoke", "--size", "1m", "--rho", "0,1", "--rho", "0.5", "--set", "model.memory.design=value", "--seeds", "2"]
    found = asked(*words, "--results", str(tmp_path / "r"), "--json").spec.asked_by
    assert found[:2] == ("sweep", "smoke")
    again = asked(*found[1:], "--results", str(tmp_path / "r"))
    assert again.spec.asked_by == found
    assert sorted(found[2:]) == sorted(words[1:])


def test_a_refused_sweep_leaves_no_folder(asked, tmp_path):
    asked("smoke", "--results", str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    asked("smoke", "--results", str(tmp_path / "kept"))
    assert list((tmp_path / "kept").iterdir()) == []
    store = Store(tmp_path / "kept", "smoke")
    store.folder.mkdir()
    (store.folder / "notes.txt").touch()
    asked("smoke", "--results", str(tmp_path / "kept"))
    assert (store.folder / "notes.txt").exists()


def test_every_trial_knows_the_command_that_asked_for_it(asked, tmp_path):
    corpus = SimpleNamespace(folder=Path("c"), fingerprint="f", tokenizer_fingerprint="t", vocab_size=512)
    run = asked("smoke", "--results", str(tmp_path))

    def ids(manifest, spec, seed):
        trial = SimpleNamespace(id=f"{seed:012x}", size="1m", budget_flops=1.0, variant="", rho=1.0, seed=seed)
        return with_trials(updated_manifest(manifest, spec, corpus), [trial])

    from engramctl.results.manifest import Manifest

    one, two = run.spec.asked_with(("sweep", "smoke")), run.spec.asked_with(("sweep", "smoke", "--seeds", "2"))
    manifest = ids(ids(ids(Manifest(), one, 0), two, 1), two, 2)
    assert manifest.commands == (one.asked_by, two.asked_by)
    assert manifest.commands_for({f"{0:012x}"}) == [one.asked_by]
    assert manifest.commands_for({f"{0:012x}", f"{1:012x}", f"{2:012x}"}) == [one.asked_by, two.asked_by]
    assert updated_manifest(Manifest(), run.spec.asked_with(()), corpus).commands == ()


def test_after_failures_the_next_step_is_the_sweep(fill, make_row, tmp_path, capsys):
    rows = [make_row(0.0), make_row(0.5, status="failed")]
    store = fill(tmp_path / "s p", rows)
    trials = [SimpleNamespace(id=row["trial_id"]) for row in [*rows, make_row(1.0)]]
    with pytest.raises(typer.Exit):
        _report(store, trials, time.monotonic(), False, ("sweep", "allocation", "--seeds", "2"))
    said = capsys.readouterr().err
    again = shlex.join(["engramctl", "sweep", "allocation", "--seeds", "2", "--results", str(tmp_path / "s p")])
    assert f"next: `{again}` trains the 2 failed or missing trials again" in " ".join(said.split())
    assert "engramctl plot" not in said


def open_fit(further, *rhos):
    return SimpleNamespace(verdict=SimpleNamespace(kind="memory-helps", further_seeds=further, further_rhos=rhos))


def test_seeds_that_settle_nothing_are_not_recommended(fill, make_row, tmp_path):
    opened = SweepResults.of_store(fill(tmp_path, [make_row(seed=1)]))
    none, some = Series("1m", 1e12, ""), Series("1m", 2e12, "")
    assert "would not settle it" in next_step.further(opened, SimpleNamespace(allocation={none: open_fit(None), some: open_fit(0)}))
    assert "adds a seed" in next_step.further(opened, SimpleNamespace(allocation={none: open_fit(0)}))


def test_advice_is_of_the_cheapest_series_with_its_rhos_and_cost(fill, make_row, tmp_path):
    budgets = {1e12: 10.0, 4e12: 40.0}
    rows = [make_row(rho, seed=seed, budget=b) | {"wall_s": s} for b, s in budgets.items() for rho in (0.0, 0.4, 1.0) for seed in (0, 1)]
    opened = SweepResults.of_store(fill(tmp_path, rows))
    small, large = (Series(rows[0]["size"], budget, "") for budget in budgets)
    fits = {large: open_fit(2, 0.0, 0.4), small: open_fit(5, 0.4, 1.0)}
    first, second = advice(opened.wanted, fits)
    assert (first.series, first.seeds, first.trials, first.seconds) == (small, 7, 10, 100)
    assert (second.series, second.seeds, second.trials, second.seconds) == (large, 4, 4, 160)
    said = next_step.further(opened, SimpleNamespace(allocation=fits))
    assert f"--size {small.size} --budget 1e+12 --rho 0.4,1 --seeds 7" in said
    assert "(10 trials, 1m40s of training on one core); 1 more are open" in said


def advised(said):
    """The commands that a command's talk advises, as words."""
    return [shlex.split(line)[1:] for line in re.findall(r"`(engramctl [^`]+)`", " ".join(said.split()))]


STATES = {
    "finished": ([(rho, "finished") for rho in (0.0, 0.5, 1.0)], ()),
    "failed": ([(0.0, "finished"), (0.5, "failed"), (1.0, "finished")], ()),
    "diverged": ([(0.0, "finished"), (0.5, "diverged"), (1.0, "finished")], ()),
    "all diverged": ([(0.0, "diverged"), (1.0, "diverged")], ()),
    "missing": ([(0.0, "finished"), (1.0, "finished")], (0.5,)),
    "enough values of rho": ([(rho, "finished") for rho in (0.0, 0.25, 0.5, 0.75, 1.0)], ()),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", ["status", "fit", "plot", "report", "sweep ends"])
def test_every_command_that_is_advised_can_be_typed_as_it_stands(state, command, fill, make_row, tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(sweep_run, "run_sweep", lambda run, cache: started.append(run.spec) or [])
    done, left = STATES[state]
    rows = [make_row(rho, status=status) for rho, status in done]
    store = fill(tmp_path / "s p", rows, missing=[make_row(rho) for rho in left])
    words = ("sweep", "allocation", "--rho", ",".join(str(rho) for rho in [*(rho for rho, _ in done), *left]), "--budget", "1e12")
    manifest = store.read_manifest()
    wanted = tuple(trial.model_copy(update={"asked_by": 0}) for trial in manifest.trials)
    store.write_manifest(manifest.model_copy(update={"commands": (words,), "trials": wanted}))
    if command == "sweep ends":
        with suppress(typer.Exit):
            _report(store, [SimpleNamespace(id=trial.trial_id) for trial in wanted], time.monotonic(), False, words)
        said = capsys.readouterr().err
    else:
        said = CliRunner().invoke(app, [command, "allocation", "--results", str(tmp_path / "s p")]).stderr
    commands = advised(said)
    assert commands or "no trial has a loss" in said or command == "report"
    for typed in commands:
        result = CliRunner().invoke(app, typed)
        assert result.exit_code in (0, 1), (typed, result.output)  # 1: the sweep that was not run has no rows
        if typed[0] == "sweep":
            assert {trial.rho for trial in wanted} <= set(started[-1].rhos)
    if command in ("fit", "plot") and state == "finished":
        assert started[-1].rhos == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_options_are_changed_where_they_stand(tmp_path):
    manifest = SimpleNamespace(commands_for=lambda ids: [("sweep", "--seeds", "2", "--rho=0,1", "--rho", "0.5", "--name", "x", "--", "-f")])
    found = next_step.going_on(manifest, set(), "x", tmp_path, rho="0,0.5,1", seeds="3")
    words = shlex.split(found.strip("`"))
    assert words == ["engramctl", "sweep", "--name", "x", "--rho", "0,0.5,1", "--seeds", "3", "--results", str(tmp_path), "--", "-f"]
