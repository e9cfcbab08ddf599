import errno
import os
import resource

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engram.files import is_full, naming, refusal, temporary_folder, whole_folder, write_atomically


def test_an_interrupted_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


def folder_of(write):
    def written(target):
        with whole_folder(target) as folder:
            write(folder / "x")

    return written


WRITERS = {
    "file": lambda target: write_atomically(target, bytes(100_000)),
    "folder": folder_of(lambda file: file.write_bytes(bytes(100_000))),
    "safetensors": folder_of(lambda file: save_file({"a": torch.zeros(25_000)}, file)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_named_and_leaves_nothing(small_disk, write):
    disk = small_disk("300k")
    target = disk.folder / "target"
    write(target)
    before = disk.files()
    disk.fill(leave=50_000)
    with pytest.raises(OSError, match="No space left on device") as problem:
        write(target)
    assert is_full(problem.value)
    assert str(problem.value.filename).startswith(str(target))
    assert ".tmp" not in str(problem.value.filename)
    assert refusal(problem.value).endswith(": No space left on device; make room there, and the same command goes on")
    assert disk.files() == before
    disk.make_room()
    write(target)
    assert disk.files() == before


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_so_is_one_that_has_become_read_only(small_disk, write):
    disk = small_disk("300k")
    disk.remount("ro")
    with pytest.raises(OSError, match="Read-only file system") as problem:
        write(disk.folder / "target")
    assert problem.value.errno == errno.EROFS
    assert str(disk.folder) in refusal(problem.value)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_so_is_a_limit_of_the_size_of_files(tmp_path, write):
    """`ulimit -f`, which any user can have."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as problem:
            write(tmp_path / "target")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert problem.value.errno == errno.EFBIG
    assert refusal(problem.value).startswith(f"{tmp_path}/target")
    assert "`ulimit -f`" in refusal(problem.value)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_when_the_folder_is_written_again(tmp_path):
    left = tmp_path / ".target.1.tmp"
    left.mkdir()
    (left / "weights").write_bytes(bytes(10))
    with whole_folder(tmp_path / "target") as folder:
        assert not left.exists()
        (folder / "x").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_errors_of_rust_are_those_of_the_system_and_others_stay(tmp_path):
    with pytest.raises(OSError, match="No space left") as found, naming(tmp_path):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert (found.value.errno, found.value.filename) == (errno.ENOSPC, str(tmp_path))
    with pytest.raises(ValueError, match="another"), naming(tmp_path):
        raise ValueError("another")
    with pytest.raises(OSError, match="elsewhere") as found, naming(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "elsewhere")
    assert found.value.filename == "elsewhere"
    with pytest.raises(OSError, match="requested") as found, naming(tmp_path):
        raise OSError(f"{np.int64(3)} requested and 0 written")
    assert found.value.filename is None


def test_temporary_folders_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    dead = tmp_path / "bench-dead"
    dead.mkdir()
    (dead / "lock").touch()
    (tmp_path / "bench-half-removed").mkdir()  # its lock went first
    (dead / "table.rows").write_bytes(bytes(1000))
    other = tmp_path / "mine"
    other.mkdir()
    with temporary_folder("bench-", tmp_path) as living:
        assert not dead.exists()
        with temporary_folder("bench-", tmp_path) as second:
            assert living.is_dir()
            assert second != living
    assert list(tmp_path.iterdir()) == [other]


def test_a_temporary_folder_on_a_full_disk_names_it(small_disk):
    disk = small_disk("40k")
    disk.remount("ro")
    with pytest.raises(OSError, match="Read-only file system") as found, temporary_folder("bench-", disk.folder):
        pass
    assert str(disk.folder) in str(found.value.filename)
