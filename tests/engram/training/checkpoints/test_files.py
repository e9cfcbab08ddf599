"""Damaged step checkpoints: the older one or the start is taken, and it is said in one line."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch

from engram.processes import Processes
from engram.training.checkpoints import files, shards


@pytest.fixture
def two_steps(tmp_path):
    """A checkpoint of step 2, with that of step 1 still beside it."""
    folder, kept = tmp_path / "trial", tmp_path / "kept"
    for step in (1, 2):
        files.save_step(folder, step, {"w": torch.full((50, 50), float(step))}, {"m": torch.ones(9)}, {"step": step})
        if step == 1:
            shutil.copytree(files.step_folder(folder, 1), kept)
    kept.rename(files.step_folder(folder, 1))
    return folder


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


DAMAGES = [
    ("weights.safetensors", truncate, "can't be read"),
    ("weights.safetensors", flip, "checksum of weights.safetensors differs"),
    ("optimizer.safetensors", flip, "optimizer.safetensors"),
    ("optimizer.safetensors", lambda file: file.unlink(), "optimizer.safetensors is missing"),
    ("weights.safetensors", lambda file: file.write_bytes(b""), "weights.safetensors can't be read"),
    ("state.json", lambda file: file.write_text('{"step": '), "state.json can't be read"),
    ("state.json", lambda file: file.write_text("[]"), "state.json can't be read"),
    ("state.json", lambda file: file.write_text('{"step": 2 }'), "checksum of state.json differs"),
    ("state.json", lambda file: file.write_bytes(b"\xff\xfe"), "state.json can't be read"),
]


@pytest.mark.parametrize(("name", "damage", "why"), DAMAGES)
def test_a_damaged_step_is_passed_over(two_steps, name, damage, why):
    damage(files.last_step(two_steps) / name)
    with pytest.warns(UserWarning, match="training goes on from step-000000001") as said:
        weights, _, state = files.load_step(two_steps)
    assert (state["step"], weights["w"].unique().tolist()) == (1, [1.0])
    (line,) = [str(one.message) for one in said]
    assert why in line
    assert "\n" not in line
    with pytest.warns(UserWarning, match="from step-000000001"):
        assert shards.load_step(two_steps, Processes())[2]["step"] == 1
    damage(two_steps / "step-000000001" / name)
    with pytest.warns(UserWarning, match="training goes on from the start"):
        assert files.load_step(two_steps) is None
    shards.check_begun(two_steps, 1)


def test_checkpoints_without_checksums_stay_readable(two_steps):
    latest = files.last_step(two_steps)
    for sums in latest.glob("*.crc32"):
        sums.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files.load_step(two_steps)[2]["step"] == 2
    truncate(latest / "weights.safetensors")
    with pytest.warns(UserWarning, match="from step-000000001"):
        assert files.load_step(two_steps)[2]["step"] == 1


def test_tables_on_disk_do_not_go_on_from_an_older_step(two_steps):
    (two_steps / "step-000000001" / "state.json").write_text(json.dumps({"step": 1, "tables": "disk"}))
    (two_steps / "step-000000001" / "state.json.crc32").unlink()
    flip(two_steps / "step-000000002" / "weights.safetensors")
    with pytest.warns(UserWarning, match="from the start"):
        assert files.load_step(two_steps) is None


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_all_files_have_the_mode_that_the_umask_leaves(tmp_path, umask, mode):
    program = (
        f"import os, sys, pathlib, torch; os.umask({umask}); from engram.training.checkpoints import files\n"
        "files.save_step(pathlib.Path(sys.argv[1]), 1, {'w': torch.ones(3)}, {'m': torch.ones(3)}, {'step': 1})\n"
        "files.save_final(pathlib.Path(sys.argv[1]), {'w': torch.ones(3)}, {}, {}, b'{}')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert {"weights.safetensors", "state.json", "trial.json"} <= found.keys()
    assert set(found.values()) == {mode}
    assert os.access(tmp_path, os.R_OK)


def test_a_step_that_no_longer_fits_leaves_the_one_before_it(small_disk):
    disk = small_disk("200k")

    def save(step):
        files.save_step(disk.folder / "trial", step, {"w": torch.full((50, 50), float(step))}, {"m": torch.ones(9)}, {"step": step})

    save(1)
    before = disk.files()
    for leave in (0, 4096, 12_288, 16_384, 20_480):
        disk.fill(leave)
        with pytest.raises(OSError, match="No space left on device") as problem:
            save(2)
        assert "/trial/step-000000002" in str(problem.value.filename)
        assert disk.files() == before
        disk.make_room()
    assert files.last_sound_step(disk.folder / "trial") == files.step_folder(disk.folder / "trial", 1)
    save(2)
    assert files.load_step(disk.folder / "trial")[2] == {"step": 2}
