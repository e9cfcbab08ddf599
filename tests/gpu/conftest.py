"""A GPU has to do what a CPU does: the same commands, on the device that `ENGRAMCTL_GPU_TESTS` names (default: cuda).

Skipped where there is no GPU; `ENGRAMCTL_GPU_TESTS=cpu` rehearses everything but the GPU itself on a machine without one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

DEVICE = os.environ.get("ENGRAMCTL_GPU_TESTS", "cuda")
HERE = Path(__file__).parent
Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DEVICE == "cpu" or torch.cuda.is_available():
        return
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """An engramctl command as a process of its own, whether or not the package is installed."""
    command = [sys.executable, "-m", "engramctl", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == code, f"{' '.join(command)}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result


def trials(results: Path, sweep: str = "tiny") -> pd.DataFrame:
    """Rows of the finished trials, by rho."""
    rows = pd.concat(pd.read_parquet(path) for path in (results / sweep / "trials").glob("*.parquet"))
    return rows.set_index("rho").sort_index()


@pytest.fixture(scope="session")
def sweep(text_folder, cache, tmp_path_factory) -> Callable[..., Path]:
    """Runs a sweep of three short trials in a results folder of its own and returns the folder."""
    file = tmp_path_factory.mktemp("yaml") / "tiny.yaml"
    spec = {
        "question": "Is a GPU right?",
        "corpus": {"source": f"files:{text_folder}/*.txt", "vocab_size": 400, "val_fraction": 0.1},
        "sizes": ["1m"],
        "rhos": [0, 0.5, 1],
        "budgets": ["3e10"],
        "train": {"val_tokens": 2048, "n_validations": 2},
    }
    file.write_text(json.dumps(spec))

    def start(*options: object, device: str = DEVICE, code: int = 0) -> Path:
        results = tmp_path_factory.mktemp("results")
        run("sweep", file, "--cache", cache, "--results", results, "--device", device, *options, code=code)
        return results

    return start


@pytest.fixture(scope="session")
def finished(sweep) -> Path:
    """Results of the sweep with its three trials side by side on the device."""
    return sweep("--workers", 3)


@pytest.fixture(scope="session")
def checkpoint(finished) -> Path:
    """The trained model with half memory, half experts."""
    return finished / "tiny" / "checkpoints" / trials(finished).loc[0.5, "trial_id"]
