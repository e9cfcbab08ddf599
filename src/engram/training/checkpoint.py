"""Checkpoints: a folder that exists is whole.

`<folder>/step-<n>/` holds `weights.safetensors`, `optimizer.safetensors` and `state.json`; `<folder>/final/` all that
using the model needs: the weights, the trial's config, how it ended and the tokenizer (`engram.training.restore` reads
it). A checkpoint is written to a temporary folder, synced and renamed.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

FINAL = "final"


def _write_folder(target: Path, tensors: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, bytes]) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, group in tensors.items():
        save_file({key: value.detach().contiguous() for key, value in group.items()}, temporary / f"{name}.safetensors")
    for name, content in files.items():
        (temporary / name).write_bytes(content)
    for file in [*temporary.iterdir(), temporary]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False).encode()


def save_step(folder: Path, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Keep everything needed to continue after `step`; older steps are removed once this one is whole."""
    target = folder / f"step-{step:09d}"
    _write_folder(target, {"weights": weights, "optimizer": optimizer}, {"state.json": _json(state)})
    for other in folder.iterdir():
        if other != target and other.name != FINAL:
            shutil.rmtree(other, ignore_errors=True)


def load_step(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """Weights, optimiser state and `state` of the latest step; None when there is none."""
    steps = sorted(folder.glob("step-*"))
    if not steps:
        return None
    latest = steps[-1]
    state = json.loads((latest / "state.json").read_text())
    return load_file(latest / "weights.safetensors"), load_file(latest / "optimizer.safetensors"), state


def save_final(
    folder: Path, weights: Mapping[str, Tensor], trial: Mapping[str, Any], state: Mapping[str, Any], tokenizer_json: bytes
) -> None:
    """Keep the trained model, its config, how it ended and its tokenizer, beside the steps."""
    files = {"trial.json": _json(trial), "state.json": _json(state), "tokenizer.json": tokenizer_json}
    _write_folder(folder / FINAL, {"weights": weights}, files)


def discard_steps(folder: Path) -> None:
    """Remove everything but the final model."""
    if folder.exists():
        for other in folder.iterdir():
            if other.name != FINAL:
                shutil.rmtree(other, ignore_errors=True)
