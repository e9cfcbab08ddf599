import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from engram.errors import UserError
from engramctl.cli import app
from engramctl.commands import rm as command
from engramctl.results import remove as removal
from engramctl.results.store import Store, list_sweeps


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0, answer=None):
        result = CliRunner().invoke(app, ["rm", *arguments, "--results", str(tmp_path)], input=answer)
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def store(fill, make_row, curve, documents, tmp_path) -> Store:
    """Three trials with everything that a trial may have, a failed one, and a missing one with a checkpoint."""
    rows = [make_row(rho) for rho in (0.0, 0.5, 1.0)] + [make_row(0.75, status="failed")]
    store = fill(tmp_path, rows, missing=[make_row(0.25)])
    for row in rows[:3]:
        store.write_trial(row, curve, documents)
        final = store.checkpoints / row["trial_id"] / "final"
        final.mkdir(parents=True)
        (final / "weights.safetensors").write_bytes(b"w" * 1000)
        (store.folder / "evals").mkdir(exist_ok=True)
        (store.folder / "evals" / f"{row['trial_id']}.json").write_text("{}")
    step = store.checkpoints / make_row(0.25)["trial_id"] / "step-000000001"
    step.mkdir(parents=True)
    (step / "state.json").write_text('{"step": 1, "steps": 10}')
    return store


def trial_id(make_row, rho):
    return make_row(rho)["trial_id"]


def wanted(store):
    return set(store.read_manifest().positions())


def test_a_trial_is_removed_with_everything_it_has(run, store, make_row):
    gone, kept = trial_id(make_row, 0.5), trial_id(make_row, 1.0)
    result = run("allocation", gone[:6], "--yes")
    assert f"rm removes trial {gone} of {store.folder}: 1 finished; 1 checkpoint; " in result.stderr
    assert not [path for path in store.folder.rglob("*") if gone in path.name]
    assert gone not in store.finished_ids()
    assert gone not in wanted(store)
    assert len(wanted(store)) == 4
    assert {path.parent.name for path in store.folder.rglob(f"{kept}*")} == {"trials", "curves", "documents", "checkpoints", "evals"}
    assert len(store.read_documents(kept)) == 2


def test_several_trials_and_ones_that_never_finished(run, store, make_row):
    missing = trial_id(make_row, 0.25)
    ids = [missing, *store.read_trials().query("status == 'failed'")["trial_id"]]
    data = json.loads(run("allocation", *ids, missing, "-y", "--json").stdout)
    assert data["trials"] == ids
    assert not data["whole_sweep"]
    assert wanted(store) == set(store.read_trials()["trial_id"]) == store.finished_ids()
    assert not (store.checkpoints / missing).exists()


def test_a_whole_sweep(run, store, fill, make_row, tmp_path):
    fill(tmp_path, [make_row()], sweep="other")
    size = sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
    result = run("allocation", "--yes", "--json")
    assert "3 finished, 1 failed; 4 checkpoints; " in result.stderr
    data = json.loads(result.stdout)
    assert data["whole_sweep"]
    assert data["n_bytes"] == pytest.approx(size, abs=200)  # the lock's files
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("trials", [(), (0.5,)])
def test_it_asks_and_no_is_the_default(run, store, make_row, monkeypatch, trials):
    monkeypatch.setattr(command, "_interactive", lambda: True)
    arguments = ["allocation", *(trial_id(make_row, rho) for rho in trials)]
    for answer in ("\n", "n\n"):
        result = run(*arguments, code=1, answer=answer)
        assert "Remove for good? [y/N]" in result.stderr
        assert "nothing was removed" in result.stderr
        assert len(store.read_trials()) == 4
    run(*arguments, answer="y\n")
    assert list_sweeps(store.results) == (["allocation"] if trials else [])


def one_line(result):
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_mistakes_are_one_line_and_remove_nothing(run, store, make_row):
    gone = trial_id(make_row, 0.5)
    assert "there is no terminal to ask on: --yes does it" in one_line(run("allocation", code=2))
    assert f"rm would remove trial {gone} of" in one_line(run("allocation", gone, code=2))
    assert "has no results" in one_line(run("nope", "--yes", code=2))
    assert "sweep allocation has no trial 'xyz'; it has " in one_line(run("allocation", gone, "xyz", "--yes", code=2))
    assert "sweep allocation has no trial ''" in one_line(run("allocation", "", "--yes", code=2))
    assert len(store.read_trials()) == 4


def test_a_running_sweep_is_left_alone(run, store, make_row):
    program = (
        "import sys, pathlib; from engramctl.results.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1]), 'allocation').lock(): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(store.results)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for trials in ([], [trial_id(make_row, 0.5)]):
            assert f"allocation is being run by process {holder.pid} on " in one_line(run("allocation", *trials, "--yes", code=2))
        assert len(store.read_trials()) == 4
    finally:
        holder.kill()
        holder.communicate()
    run("allocation", "--yes")


def test_results_that_can_t_be_read_can_be_removed(run, store):
    store.manifest.write_text('{"schema_version": 1}')
    next(store.trials.glob("*.parquet")).write_bytes(b"x")
    assert "4 unreadable" in run("allocation", "--yes").stderr
    assert not store.folder.exists()


def test_a_link_is_not_followed(run, store):
    elsewhere = store.results / "elsewhere"
    store.folder.rename(elsewhere)
    store.folder.symlink_to(elsewhere)
    assert "is a link to" in one_line(run("allocation", "--yes", code=2))
    assert len(store.read_trials()) == 4


class Killed(BaseException):
    pass


@pytest.fixture
def killed(monkeypatch):
    """Call a function that is killed when it comes to its n-th folder, counted from 0."""

    def call(n, function, *arguments):
        real, left = shutil.rmtree, iter(range(n))

        def rmtree(path, **more):
            if next(left, None) is None:
                raise Killed
            real(path, **more)

        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", rmtree)
            with pytest.raises(Killed):
                function(*arguments)

    return call


def test_a_kill_leaves_no_sweep_and_the_next_removal_clears_up(killed, store, fill, make_row, tmp_path):
    killed(0, removal.remove_sweep, store)
    assert list_sweeps(tmp_path) == []
    assert list(tmp_path.iterdir())
    removal.remove_sweep(fill(tmp_path, [make_row()], sweep="other"))
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_whole_trials(killed, store, make_row):
    ids = [trial_id(make_row, rho) for rho in (0.0, 0.5, 1.0)]
    killed(1, removal.remove_trials, store, ids)
    rows = store.read_trials()
    assert set(rows.query("status == 'finished'")["trial_id"]) == {ids[2]}
    assert {path.name for path in store.checkpoints.glob("[!.]*")} == {ids[2], trial_id(make_row, 0.25)}
    assert wanted(store) >= set(ids), "the sweep trains them again, or a second rm takes them out"
    removal.remove_trials(store, ids)
    assert [path.name for path in store.checkpoints.iterdir()] == [trial_id(make_row, 0.25)]
    assert not wanted(store) & set(ids)


@pytest.mark.parametrize("bad", ["a0/../../../../precious/sub", "../../precious", "*", "/precious", "a" * 12 + "/.."])
def test_nothing_outside_the_sweep_is_touched(run, store, tmp_path, bad):
    precious = tmp_path / "precious" / "sub"
    precious.mkdir(parents=True)
    (precious / "file").touch()
    content = json.loads(store.manifest.read_text())
    content["trials"][0]["trial_id"] = bad
    store.manifest.write_text(json.dumps(content))
    assert "trial_id" in one_line(run("allocation", bad, "--yes", code=2))
    with pytest.raises(UserError, match="no id of a trial"):
        removal.remove_trials(store, [bad])
    assert (precious / "file").exists()
    assert len(store.read_trials()) == 4


def test_a_linked_folder_in_a_sweep_is_not_followed(run, store, make_row, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    store.checkpoints.rename(elsewhere)
    store.checkpoints.symlink_to(elsewhere)
    gone = trial_id(make_row, 0.5)
    assert "behind a link; nothing was removed" in one_line(run("allocation", gone, "--yes", code=2))
    assert (elsewhere / gone / "final" / "weights.safetensors").exists()
    assert gone in store.finished_ids()
