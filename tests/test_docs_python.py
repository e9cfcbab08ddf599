"""The Python of docs/python.md runs as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run(block: str, folder: Path) -> list[str]:
    """The lines that a block prints, in a folder and with a cache of its own."""
    environment = os.environ | {"ENGRAMCTL_CACHE": str(folder / "users-cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def train_block():
    return next(block for block in BLOCKS if "from engram import" in block)


@pytest.fixture
def open_block():
    return next(block for block in BLOCKS if "from engramctl import" in block)


def test_a_trial_is_trained(train_block, text_folder, tmp_path):
    shutil.copytree(text_folder, tmp_path / "texts")
    *progress, loss, text = run(train_block, tmp_path)
    assert "step=50, steps=50" in progress[-1]
    assert 0 < float(loss.split()[0]) < 4
    assert text.split()
    assert (tmp_path / "trial" / "final" / "trial.json").is_file()


def test_a_sweep_is_opened(open_block, tmp_path):
    shutil.copytree(ROOT / "results" / "reference", tmp_path / "results" / "reference")
    lines = run(open_block, tmp_path)
    assert "\n".join(line.rstrip() for line in lines) in PAGE
    assert {path.name for path in tmp_path.glob("*.png")} == {"allocation.png", "drift.png"}
