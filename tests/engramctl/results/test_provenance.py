import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import engramctl
from engram import kernels
from engramctl.results import provenance

ROOT = Path(__file__).parents[3]


@pytest.fixture
def no_metadata(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    monkeypatch.setattr(provenance, "version", absent)


def test_versions_are_those_installed():
    found = json.loads(provenance.versions())
    assert found.keys() == {"python", "engramctl", "torch", "numpy", "ray", "tokenizers", "kernels"}
    assert (found["engramctl"], found["torch"], found["numpy"]) == (engramctl.__version__, torch.__version__, np.__version__)


def test_versions_without_installed_metadata_come_from_the_packages(no_metadata):
    found = json.loads(provenance.versions())
    assert (found["engramctl"], found["torch"], found["numpy"]) == (engramctl.__version__, torch.__version__, np.__version__)
    assert "unknown" not in found.values()


def test_what_cannot_be_told_is_unknown_and_loses_nothing(no_metadata, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(provenance, "import_module", broken)
    monkeypatch.setattr(kernels, "version", broken)
    monkeypatch.setattr(provenance.socket, "gethostname", lambda: (_ for _ in ()).throw(OSError("no name")))
    found = json.loads(provenance.versions())
    assert (found["torch"], found["kernels"], provenance.hostname()) == ("unknown", "unknown", "unknown")


def test_a_program_on_the_path_alone(tmp_path):
    """As with PYTHONPATH instead of pip: no metadata of engramctl is found by a Python that sees only its files."""
    program = "import sys; sys.path = [p for p in sys.path if p]; from engramctl.results.provenance import versions; print(versions())"
    hidden = "import importlib.metadata as m\nold = m.version\n"
    hidden += (
        "def version(name):\n    if name == 'engramctl': raise m.PackageNotFoundError(name)\n    return old(name)\nm.version = version\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden + program],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["engramctl"] == engramctl.__version__
