import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from engramctl.results import liveness
from engramctl.results.liveness import Process, RunningTrials, read_running
from engramctl.results.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path, "allocation")
    store.check_writable()
    return store


def ids(store):
    running = read_running(store)
    return None if running is None else set(running.trials)


def test_trials_come_and_go(store):
    assert ids(store) is None
    with RunningTrials(store) as running:
        assert ids(store) == set()
        for trial, runs, expected in (
            ("a", True, {"a"}), ("b", True, {"a", "b"}), ("a", True, {"a", "b"}), ("a", False, {"b"}),
            ("b", False, set()), ("b", True, {"b"}), ("c", True, {"b", "c"}), ("b", False, {"c"}),
        ):  # fmt: skip
            running.note(trial, runs)
            assert ids(store) == expected
    assert ids(store) is None
    assert not list(store.folder.glob("*running*"))


def test_progress_alone_writes_now_and_then(store, monkeypatch):
    with RunningTrials(store) as running:
        running.note("a", runs=True)
        os.utime(store.running, (1, 1))
        running.note("a", runs=True)
        assert store.running.stat().st_mtime == 1
        monkeypatch.setattr(liveness, "_REFRESH_S", 0.0)
        running.note("a", runs=True)
        assert store.running.stat().st_mtime > 1


def test_what_a_killed_process_left_behind_is_ignored(store):
    program = (
        "import pathlib, sys\nfrom engramctl.results.liveness import RunningTrials\nfrom engramctl.results.store import Store\n"
        "with RunningTrials(Store(pathlib.Path(sys.argv[1]), 'allocation')) as r:\n"
        "    r.note('a', True); print('told', flush=True); sys.stdin.read()"
    )
    sweep = subprocess.Popen([sys.executable, "-c", program, str(store.results)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert sweep.stdout is not None
        assert sweep.stdout.readline() == b"told\n"
        running = read_running(store)
        assert running is not None
        assert (running.process.pid, running.trials) == (sweep.pid, {"a"})
    finally:
        sweep.kill()
        sweep.communicate()
    assert store.running.is_file()
    assert ids(store) is None


def test_a_process_on_another_machine_is_trusted_while_its_file_is_fresh(store):
    store.running.write_text(json.dumps({"process": {"host": "elsewhere", "pid": 1, "created": 0.0}, "trials": ["a"]}))
    assert ids(store) == {"a"}
    old = time.time() - 3600
    os.utime(store.running, (old, old))
    assert ids(store) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"process": {"pid": 1}, "trials": []}', '{"process": null, "trials": null}'])
def test_a_damaged_file_says_nothing(store, content):
    store.running.write_text(content)
    assert ids(store) is None


@pytest.mark.parametrize(
    "odd",
    [{"pid": "7"}, {"pid": -1}, {"pid": 0}, {"pid": 2**70}, {"pid": 1.5}, {"pid": True}, {"pid": None}, {"host": 7}, {"created": "now"}],
)
def test_an_odd_process_says_nothing(store, odd):
    store.running.write_text(json.dumps({"process": asdict(Process.this()) | odd, "trials": ["a"]}))
    assert ids(store) is None


@pytest.mark.parametrize("odd", ["abc", 7, {"a": 1}, None])
def test_odd_trials_say_nothing(store, odd):
    store.running.write_text(json.dumps({"process": asdict(Process.this()), "trials": odd}))
    assert ids(store) is None


def test_a_folder_that_can_t_be_written_does_not_stop_training(tmp_path):
    with RunningTrials(Store(tmp_path / "nowhere", "allocation")) as running:
        running.note("a", runs=True)


def test_a_reused_pid_is_not_the_same_process():
    me = Process.this()
    assert not me.gone()
    assert Process(me.host, me.pid, me.created - 5).gone()
    assert not Process(me.host, me.pid, me.created + 1).gone(), "the clock was put right meanwhile"
    assert not Process("elsewhere", me.pid, me.created - 5).gone(), "what another machine runs can't be seen from here"


@pytest.mark.parametrize(
    "content",
    [
        {"process": {"host": "HERE", "pid": "7", "created": 1.0}, "trials": []},
        {"process": {"host": "HERE", "pid": 10**400, "created": 1.0}, "trials": []},
        {"process": {"host": "HERE", "pid": -1, "created": 1.0}, "trials": []},
        {"process": {"host": None, "pid": 7, "created": 1.0}, "trials": []},
        {"process": {"host": "HERE", "pid": 7, "created": "then"}, "trials": []},
        {"process": {"host": "elsewhere", "pid": 7, "created": 1.0}, "trials": "ab"},
        {"process": {"host": "elsewhere", "pid": 7, "created": 1.0}, "trials": [[]]},
        {"process": [], "trials": []},
        [],
        None,
    ],
)
def test_what_was_not_written_by_a_sweep_says_nothing(store, content):
    store.running.write_text(json.dumps(content).replace("HERE", os.uname().nodename))
    assert read_running(store) is None
