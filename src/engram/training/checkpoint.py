"""Checkpoints: a folder that exists is whole.

`<folder>/step-<n>/` holds `weights.safetensors`, `optimizer.safetensors` and `state.json`; `<folder>/final/` all that
using the model needs: the weights, the trial's config, how it ended and the tokenizer (`engram.training.restore` reads
it). A checkpoint is written to a temporary folder, synced and renamed. `<folder>/tables/` holds memory tables that lie on
disk in training, with what it takes to bring them back to the last step (`engram.memory.placement.journal`).
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FINAL = "final"
TABLES = "tables"

Streams = Mapping[str, tuple[tuple[int, int], Iterator[Tensor]]]
"""Matrices that don't fit into RAM, by name: their shape, and their rows in passes fp32 [n, r]."""


def _write_folder(
    target: Path, tensors: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, bytes], streams: Streams | None = None
) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, group in tensors.items():
        path = temporary / f"{name}.safetensors"
        if streams:
            _save_streamed(path, group, streams)
        else:
            save_file({key: value.detach().contiguous() for key, value in group.items()}, path)
    for name, content in files.items():
        (temporary / name).write_bytes(content)
    for file in [*temporary.iterdir(), temporary]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _save_streamed(path: Path, tensors: Mapping[str, Tensor], streams: Streams) -> None:
    """A safetensors file (header length, header, numbers in its order) of fp32 weights, the streamed ones last."""
    shapes = {name: tuple(x.shape) for name, x in tensors.items()} | {name: shape for name, (shape, _) in streams.items()}
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in tensors.values():
            assert x.dtype == torch.float32
            file.write(x.detach().cpu().contiguous().numpy().data)
        for _, rows in streams.values():
            for part in rows:
                file.write(part.contiguous().numpy().data)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False).encode()


def save_step(folder: Path, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Keep everything needed to continue after `step`; older steps are removed once this one is whole."""
    target = folder / f"step-{step:09d}"
    _write_folder(target, {"weights": weights, "optimizer": optimizer}, {"state.json": _json(state)})
    for other in folder.iterdir():
        if other != target and other.name not in (FINAL, TABLES):
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
    folder: Path,
    weights: Mapping[str, Tensor],
    trial: Mapping[str, Any],
    state: Mapping[str, Any],
    tokenizer_json: bytes,
    streams: Streams | None = None,
) -> None:
    """Keep the trained model, its config, how it ended and its tokenizer, beside the steps; `streams` are weights too."""
    files = {"trial.json": _json(trial), "state.json": _json(state), "tokenizer.json": tokenizer_json}
    _write_folder(folder / FINAL, {"weights": weights}, files, streams or {})


def discard_steps(folder: Path) -> None:
    """Remove everything but the final model."""
    if folder.exists():
        for other in folder.iterdir():
            if other.name != FINAL:
                shutil.rmtree(other, ignore_errors=True)
