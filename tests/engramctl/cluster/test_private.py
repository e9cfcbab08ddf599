import os
import signal
import stat
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from engram.errors import UserError
from engramctl.cluster import private
from engramctl.cluster.session import Resources, ray_session
from tests.engramctl.cluster.listening import LOOPBACK, listening

SESSION = """
import signal
import sys
from engramctl.cluster.session import Resources, ray_session
from engram.errors import UserError

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a runner that was started with nohup hands down that it is ignored
try:
    with ray_session(Resources("cpu", 1, None)):
        import ray

        @ray.remote
        def add(a, b):
            return a + b

        assert ray.get(add.remote(1, 2)) == 3
        print(ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.readline()
except UserError as mistake:
    print("error:", mistake, flush=True)
    sys.exit(mistake.exit_code)
except KeyboardInterrupt:
    print("stopped", flush=True)
    sys.exit(130)
"""
CALL = """
import os, sys, ray
os.setgroups([]), os.setgid(65534), os.setuid(65534)
print(ray._raylet.GcsClient(address=sys.argv[1]).internal_kv_keys(b"", b"session", timeout=5))
"""


@pytest.fixture
def session():
    """Starts a session in a process of its own; returns the process and the address of its Ray."""
    started = []

    def start(**environment: str) -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SESSION], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | environment,
        )  # fmt: skip
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _family(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _may_become_another() -> bool:
    """Whether this user may drop to another uid: root, unless a container has taken that from it."""
    tried = subprocess.run([sys.executable, "-c", "import os; os.setgroups([]), os.setgid(65534), os.setuid(65534)"], capture_output=True)
    return tried.returncode == 0


def test_nobody_else_reaches_a_private_ray_and_nothing_of_it_stays(session, short_path):
    process, address = session(TMPDIR=str(short_path))
    family = _family(process)
    addresses = listening([psutil.Process(process.pid), *family])
    assert addresses
    assert addresses <= LOOPBACK
    (folder,) = short_path.glob("engramctl-ray-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    gcs = next(child for child in family if child.name() == "gcs_server")
    token = gcs.environ()["RAY_AUTH_TOKEN"]
    assert not any(token in word for child in family for word in child.cmdline()), "anybody can read a command line"
    if _may_become_another():
        for given, welcome in ((token, True), ("0" * 64, False), (None, False)):
            mode = {"RAY_AUTH_MODE": "disabled"} if given is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": given}
            other = subprocess.run(
                [sys.executable, "-c", CALL, address], env=os.environ | mode, capture_output=True, text=True, timeout=100
            )
            assert (other.returncode == 0) == welcome, other.stderr
            assert welcome or "InvalidAuthToken" in other.stderr
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    assert list(short_path.iterdir()) == []
    psutil.wait_procs(family, timeout=5)
    assert not any(child.is_running() for child in family)


@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_ray_that_dies_is_one_line(session, short_path, victim):
    process, _ = session(TMPDIR=str(short_path))
    family = _family(process)
    next(child for child in family if child.name() == victim).kill()
    assert process.wait(timeout=30) == 1
    said = process.stdout.read() + process.stderr.read()
    assert said == f"error: Ray's {victim} died; what is finished is kept, and the same command continues\n"
    psutil.wait_procs(family, timeout=5)
    assert not any(child.is_running() for child in family)
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize("numbers", [[signal.SIGHUP], [signal.SIGTERM], [signal.SIGINT] * 4])
def test_signals_stop_in_order(session, short_path, numbers):
    process, _ = session(TMPDIR=str(short_path))
    family = _family(process)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.3)
    assert process.wait(timeout=30) == 130
    assert process.stdout.read() + process.stderr.read() == "stopped\n"
    psutil.wait_procs(family, timeout=5)
    assert not any(child.is_running() for child in family)
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 90, "für Ray"])
def test_a_tmpdir_that_ray_cant_use(session, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    process, address = session(TMPDIR=str(folder))
    assert address.startswith("127.0.0.1:"), process.stderr.read()


@pytest.mark.parametrize("limit", ["ulimit -f 100", "ulimit -v 1000000"])
def test_a_ray_that_does_not_start_is_one_line(limit):
    command = ["bash", "-c", f'{limit}; exec "$@"', "bash", sys.executable, "-c", SESSION]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=100)
    assert done.returncode == 2, done.stderr
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("error: Ray does not start on this machine: ")


def test_a_machine_without_loopback_is_one_line(monkeypatch, short_path):
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))

    def unreachable(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", unreachable)
    with pytest.raises(UserError, match=r"127.0.0.1 can't be reached \(Network is unreachable\)"), ray_session(Resources("cpu", 1, None)):
        pass
    assert list(short_path.iterdir()) == []


def test_folders_of_killed_sessions_go_and_those_of_living_ones_stay(short_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    dead = short_path / "engramctl-ray-dead"
    (dead / "r").mkdir(parents=True)
    (dead / "lock").touch()
    unlocked, fresh = (short_path / f".engramctl-ray-{name}" for name in ("unlocked", "fresh"))
    unlocked.mkdir(), fresh.mkdir()
    os.utime(unlocked, (1, 1))
    with private.private_folder() as living:
        assert not dead.exists()
        assert not unlocked.exists()
        with private.private_folder() as second:
            assert living.is_dir()
            assert second != living
    assert list(short_path.iterdir()) == [fresh], "another process is about to lock it"


def test_no_place_for_sockets(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 90)))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="Ray needs a short path in plain ASCII for its sockets; TMPDIR is "), private.private_folder():
        pass


def test_a_full_temporary_folder_is_passed_over(monkeypatch, small_disk):
    disk = small_disk("1m")
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    monkeypatch.setattr(private, "_MAX_FOLDER_BYTES", 1000)  # pytest's paths are long
    with private.private_folder() as folder:
        assert disk.folder not in folder.parents
    disk.remount("size=30m")
    with private.private_folder() as folder:
        assert disk.folder in folder.parents
        monkeypatch.setattr(private, "_shared_memory", lambda: 64 << 20)  # of a container: Ray's object store would be a file
        with private.private_folder() as other:
            assert disk.folder not in other.parents


def test_no_room_for_a_temporary_folder_is_one_line(monkeypatch, short_path):
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(
        UserError, match=rf"^Ray needs [\d.]+ MB for .*, {short_path} has 1 MB, /tmp has .*; make room there, or set TMPDIR$"
    ):
        private.private_folder().__enter__()


def test_folders_of_killed_sessions_go_without_a_new_session(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / "engramctl-ray-12345678"
    dead.mkdir()
    (dead / "lock").touch()
    private.remove_left_folders()
    assert list(tmp_path.iterdir()) == []
