"""The whole way, with a real Ray: train, kill, continue, extend, look."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest

from engramctl.commands.sweep import _report

ENGRAMCTL = Path(sys.executable).parent / "engramctl"


def command(*arguments: str) -> list[str]:
    return [str(ENGRAMCTL), *arguments]


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stderr
    return result


@pytest.fixture(scope="module")
def arguments(text_folder, cache, tmp_path_factory):
    """Options of a sweep of three trials of a few seconds each."""
    file = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    corpus = {"source": f"files:{text_folder}/*.txt", "vocab_size": 400, "val_fraction": 0.1}
    spec = {
        "question": "Does it go on?",
        "corpus": corpus,
        "sizes": ["1m"],
        "rhos": [0, 0.5, 1],
        "budgets": ["9e10"],
        "train": {"val_tokens": 2048, "n_validations": 2},
    }
    file.write_text(json.dumps(spec))
    return [str(file), "--cache", str(cache)]


@pytest.fixture(scope="module")
def undisturbed(arguments, tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    started = run("sweep", *arguments, "--results", str(results), "--workers", "2")
    return results, started


def losses(results: Path) -> dict[str, float]:
    rows = pd.concat(pd.read_parquet(path) for path in (results / "tiny" / "trials").glob("*.parquet"))
    return dict(zip(rows["trial_id"], rows["val_loss"], strict=True))


def trainers_of(driver: int) -> list[psutil.Process]:
    """The processes in which Ray trains for a driver; asked again while one is rewriting its title."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = psutil.Process(driver).children(recursive=True)
        if found := [process for process in children if "Trainable" in " ".join(process.cmdline())]:
            return found
    return []


def cut_off_after_the_first(folder: Path) -> bool:
    """Whether some trial has its row and another one, without a row, a checkpoint."""
    rows = {path.stem for path in (folder / "trials").glob("*.parquet")}
    return bool(rows) and bool({path.parts[-3] for path in (folder / "checkpoints").glob("*/step-*/state.json")} - rows)


def test_a_sweep_ends_with_whole_tables_and_a_next_step(undisturbed):
    results, process = undisturbed
    assert "3 finished" in process.stderr
    assert f"next: `engramctl plot tiny --results {results}`" in process.stderr
    assert "WARNING" not in process.stderr
    rows = pd.concat(pd.read_parquet(path) for path in (results / "tiny" / "trials").glob("*.parquet"))
    assert sorted(rows["rho"]) == [0, 0.5, 1]
    assert set(rows["status"]) == {"finished"}
    assert (rows["val_loss"] < 6).all()
    assert rows["peak_rss_bytes"].between(1e8, 5e9).all()
    assert not (results / "tiny" / ".ray").exists()
    for trial in rows["trial_id"]:
        documents = pd.read_parquet(results / "tiny" / "documents" / f"{trial}.parquet")
        mean = documents["loss_sum"].sum() / documents["n_tokens"].sum()
        assert mean == pytest.approx(float(rows.set_index("trial_id").loc[trial, "val_loss"]))


def test_a_killed_sweep_goes_on_where_it_was(arguments, undisturbed, tmp_path):
    """With its tables on disk, where a kill leaves most to repair; the undisturbed sweep had them in the process."""
    sweep = ["sweep", *arguments, "--results", str(tmp_path), "--workers", "1", "--checkpoint-every", "1s"]
    sweep += ["--tables", "disk", "--table-cache", "300KB"]
    driver = subprocess.Popen(command(*sweep), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    # In the middle of the second trial: one row, and a checkpoint of another trial.
    while not cut_off_after_the_first(tmp_path / "tiny"):
        assert time.monotonic() < deadline
        assert driver.poll() is None, driver.stderr.read()
        time.sleep(0.02)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tiny/trials").glob("*.parquet")}
    workers = trainers_of(driver.pid)
    assert workers
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    for path in tmp_path.rglob("*.parquet"):
        pq.read_table(path)
    assert len(before) < 3

    run(*sweep)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tiny/trials").glob("*.parquet")}
    assert {name: after[name] for name in before} == before, "a finished trial was trained again"
    again, whole = losses(tmp_path), losses(undisturbed[0])
    assert again.keys() == whole.keys()
    assert all(abs(again[trial] - whole[trial]) <= 1e-6 for trial in whole)
    rows = pd.concat(pd.read_parquet(path) for path in (tmp_path / "tiny/trials").glob("*.parquet"))
    assert rows["n_restarts"].max() == 1, "the cut-off trial continued from its checkpoint"
    with_memory = rows[rows["rho"] < 1]
    assert set(with_memory["tables"]) == {"disk"}
    assert rows.loc[rows["rho"] == 1, "tables"].isna().all()
    assert with_memory["tables_hit_rate"].between(0, 1).all()
    assert (with_memory["tables_wait_s"] > 0).all()
    assert not list((tmp_path / "tiny" / "checkpoints").rglob("*.rows")), "files of tables go with the checkpoints"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--tables", "ssd"], "--tables ssd: process, host or disk is expected"),
        (["--tables", "disk", "--table-cache", "many"], "'many' is not a size"),
        (["--tables", "disk", "--table-cache", "900TB"], "a table cache of 9e+05 GB"),
        (["--tables", "host", "--devices-per-trial", "2"], "tables 'host' are for trials on one device"),
    ],
)
def test_mistaken_table_options_are_one_line(arguments, tmp_path, wrong, message):
    result = run("sweep", *arguments, "--results", str(tmp_path), *wrong, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "starting Ray" not in result.stderr


def test_full_disks_lose_nothing_and_the_same_command_goes_on(arguments, undisturbed, small_disk, short_path):
    """The disk of the results fills up after the first row; that of TMPDIR, with Ray's files, as soon as Ray has started."""
    results, temporary = small_disk("40m"), small_disk("40m")
    short = short_path / "t"
    short.symlink_to(temporary.folder)  # Ray's sockets need short paths
    sweep = ["sweep", *arguments, "--results", str(results.folder / "r"), "--workers", "1", "--checkpoint-every", "1s"]
    folder = results.folder / "r" / "tiny"
    driver = subprocess.Popen(command(*sweep), stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(short)})
    for disk, begun in ((temporary, "checkpoints/*"), (results, "trials/*.parquet")):
        while not list(folder.glob(begun)):
            assert driver.poll() is None, driver.stderr.read()
            time.sleep(0.01)
        disk.fill()
    while driver.poll() is None:  # what is removed, such as the checkpoints of the first trial, leaves no room either
        results.fill()
        time.sleep(0.05)
    talk = driver.communicate(timeout=300)[1]
    assert "Traceback" not in talk
    if driver.returncode == 2:
        assert " without leaving a row in " in talk.splitlines()[-1]
        assert talk.splitlines()[-1].endswith("finished trials are kept, the same command trains the others once there is room")
    else:  # a row of a failure came between two fillings
        assert driver.returncode == 1, talk
        assert "tiny: 2 failed, 1 finished" in talk
    assert sum("failed after" in line and ": the disk is full" in line for line in talk.splitlines()) == 2, talk
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]
    rows = pd.concat(pd.read_parquet(path) for path in (folder / "trials").glob("*.parquet"))
    assert (rows["status"] == "finished").sum() == 1
    for path in folder.rglob("*.parquet"):
        pq.read_table(path)
    assert [path.name for path in temporary.folder.iterdir() if path.name.startswith("engramctl")] == []
    # What is looked at can't be kept there either.
    for looking in (["plot", "tiny"], ["report", "tiny"], ["plot", "tiny", "--out", str(results.folder / "figures"), "--format", "svg"]):
        refused = run(*looking, "--results", str(results.folder / "r"), code=2)
        assert refused.stderr.splitlines()[-1].startswith("error: ")
        assert "No space left on device" in refused.stderr
        assert "Traceback" not in refused.stderr
    with (results.folder / "fit.json").open("w") as full:
        looking = command("fit", "tiny", "--results", str(undisturbed[0]), "--json")
        refused = subprocess.run(looking, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert (refused.returncode, refused.stderr) == (2, "error: standard output can't be written: No space left on device\n")

    results.make_room()
    before = folder / "trials" / f"{rows.set_index('status').loc['finished', 'trial_id']}.parquet"
    at = before.stat().st_mtime_ns
    assert "3 finished" in run(*sweep).stderr
    assert before.stat().st_mtime_ns == at, "a finished trial was trained again"
    again, whole = losses(results.folder / "r"), losses(undisturbed[0])
    assert {trial: again[trial] for trial in again} == {trial: whole[trial] for trial in again}
    assert len(again) == 3


def test_results_without_room_for_a_model_are_refused_before_ray_starts(arguments, small_disk):
    disk = small_disk("100k")
    refused = run("sweep", *arguments, "--results", str(disk.folder / "r"), code=2)
    assert "error: the disk is full: the 3 models of the sweep take " in refused.stderr
    assert "MB are free there; make room, or choose another folder with --results" in refused.stderr
    assert "starting Ray" not in refused.stderr
    assert list(disk.folder.iterdir()) == []


def test_more_seeds_train_only_the_new_ones(arguments, undisturbed):
    results, _ = undisturbed
    before = {path.name: path.stat().st_mtime_ns for path in (results / "tiny/trials").glob("*.parquet")}
    run("sweep", *arguments, "--results", str(results), "--rho", "1", "--seeds", "2")
    after = {path.name: path.stat().st_mtime_ns for path in (results / "tiny/trials").glob("*.parquet")}
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    result = run("sweep", *arguments, "--results", str(results), "--rho", "1", "--seeds", "2", "--json")
    assert "starting Ray" not in result.stderr, "there is nothing to train"
    assert [trial["status"] for trial in json.loads(result.stdout)["trials"]] == ["finished", "finished"]


def test_looking_at_a_sweep(undisturbed):
    results, _ = undisturbed
    points = json.loads(run("plot", "tiny", "--results", str(results), "--json").stdout)
    assert all(Path(path).stat().st_size > 5000 for path in points["figures"])
    assert {point["rho"] for point in points["points"]} == {0, 0.5, 1}
    assert run("status", "tiny", "--results", str(results)).stdout


def test_another_experiment_does_not_land_in_the_same_folder(arguments, undisturbed, tmp_path):
    results, _ = undisturbed
    spec = json.loads(Path(arguments[0]).read_text())
    changed = tmp_path / "tiny.yaml"
    changed.write_text(json.dumps(spec | {"train": {**spec["train"], "weight_decay": 0.2}}))
    result = run("sweep", str(changed), *arguments[1:], "--results", str(results), code=2)
    assert "was made with train.weight_decay = None, now it is 0.2; choose another folder with --name" in result.stderr


def test_two_drivers_do_not_share_a_sweep(arguments, undisturbed):
    from engramctl.results.store import Store

    results, _ = undisturbed
    with Store(results, "tiny").lock():
        result = run("sweep", *arguments, "--results", str(results), code=2)
    assert f"is being run by process {os.getpid()}" in result.stderr


def test_a_wall_time_is_turned_into_flops_once(arguments, tmp_path):
    sweep = ["sweep", *arguments, "--results", str(tmp_path), "--budget", "45s", "--rho", "0,1", "--workers", "2"]
    first = run(*sweep)
    budgets = json.loads((tmp_path / "tiny" / "sweep.json").read_text())["budgets"]
    assert list(budgets) == ["45s for 1m"]
    rows = pd.concat(pd.read_parquet(path) for path in (tmp_path / "tiny/trials").glob("*.parquet"))
    assert set(rows["budget_flops"]) == set(budgets.values())
    assert rows["steps"].min() > 10
    assert "kept with the sweep" in first.stderr
    assert "starting Ray" not in run(*sweep).stderr, "the same command finds its trials done"


def test_a_routing_collapse_is_reported_at_the_end(fill, make_row, tmp_path, capsys):
    rows = [make_row(rho=0.2, starved_experts=0), make_row(rho=0.6, starved_experts=7)]
    _report(fill(tmp_path, rows), [SimpleNamespace(id=row["trial_id"]) for row in rows], time.monotonic(), as_json=False)
    said = capsys.readouterr().err
    assert "routing has collapsed: 3m rho 0.6 seed 0: 7 of 160 experts got no token in the last steps" in said
    assert "rho 0.2" not in said
