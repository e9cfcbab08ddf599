"""The files of a checkpoint. A checkpoint folder that exists is complete.

`<folder>/step-<n>/` holds `weights.safetensors`, `optimizer.safetensors` and `state.json`, and beside each its
checksum. `<folder>/final/` holds all that is needed to
use the model: the weights, the trial's config, how it ended and the tokenizer (read by `engram.training.checkpoints.restore`). A
checkpoint is written to a temporary folder, synced and renamed. `<folder>/tables/` holds memory tables that are kept on disk in training,
with what it takes to bring them back to the last checkpoint (`engram.memory.placement.journal`).
"""

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engram.files import naming, whole_folder
from engram.foreign_files import read_json
from engram.training.checkpoints.tensor_file import Form, write_tensors

FINAL = "final"
WEIGHTS = "weights.safetensors"
TABLES = "tables"
_SUM = ".crc32"
NOWHERE = Path(os.devnull) / "checkpoints"
"""For a trainer that keeps nothing: no folder can ever be there."""

Streams = Mapping[str, tuple[Form, Iterator[Tensor]]]
"""Matrices that may not fit into RAM, by name: shape and dtype, and the rows in order, [n, r] at a time."""


def _write_folder(
    target: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    files: Mapping[str, bytes],
    streams: Streams | None = None,
    sums: bool = False,
) -> None:
    with whole_folder(target) as temporary:
        write_files(temporary, tensors, files, streams)
        if sums:
            write_sums(temporary, [*(f"{name}.safetensors" for name in tensors), *files])


def write_files(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, bytes], streams: Streams | None = None
) -> None:
    """Write each group of tensors as NAME.safetensors, together with the streams if there are any, and other files under their names."""
    for name, group in tensors.items():
        path = folder / f"{name}.safetensors"
        if streams:
            forms = {key: form for key, (form, _) in streams.items()}
            write_tensors(path, group, forms, ((key, rows) for key, (_, rows) in streams.items()))
        else:
            path.touch()
            mode = path.stat().st_mode
            with naming(path):
                save_file({key: value.detach().contiguous() for key, value in group.items()}, path)
            # safetensors writes for the owner alone; others may read this as they may read the files beside it.
            path.chmod(mode)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksum of each file beside it, NAME.crc32."""
    for name in names:
        (folder / f"{name}{_SUM}").write_text(f"{_crc(folder / name):08x}")


def _crc(file: Path) -> int:
    crc = 0
    with file.open("rb") as content:
        while piece := content.read(1 << 22):
            crc = zlib.crc32(piece, crc)
    return crc


def to_json(document: Mapping[str, Any]) -> bytes:
    """A JSON document as checkpoints store it."""
    return json.dumps(document, allow_nan=False).encode()


def step_folder(folder: Path, step: int) -> Path:
    """The folder of the checkpoint after `step`."""
    return folder / f"step-{step:09d}"


def save_step(folder: Path, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Save everything needed to continue after `step`; older steps are removed once this one is complete."""
    target = step_folder(folder, step)
    _write_folder(target, {"weights": weights, "optimizer": optimizer}, {"state.json": to_json(state)}, sums=True)
    discard_others(target)


def discard_others(target: Path) -> None:
    """Remove all steps but this one."""
    for other in target.parent.iterdir():
        if other != target and other.name not in (FINAL, TABLES):
            shutil.rmtree(other, ignore_errors=True)


def last_step(folder: Path) -> Path | None:
    """The folder of the latest step, if there is one."""
    return max(folder.glob("step-*"), default=None)


def warn(line: str) -> None:
    """Tell whoever uses the library."""
    warnings.warn(line, stacklevel=3)


def last_sound_step(folder: Path, tell: Callable[[str], None] = warn) -> Path | None:
    """The folder of the latest step that is undamaged, if there is one; `tell` is given a line about those that are passed over."""
    damaged: list[str] = []
    found = None
    for step in sorted(folder.glob("step-*"), reverse=True):
        why = _damage(step)
        # Tables on disk can be brought back to the latest step only.
        if why is None and damaged and read_state(step).get("tables") == "disk":
            why = "its tables on disk are those of a later step"
        if why is None:
            found = step
            break
        damaged.append(f"{step} is damaged ({why})")
    if damaged:
        goes_on = f"from {found.name}" if found else "from the start"
        tell(f"{'; '.join(damaged)}: training goes on {goes_on}")
    return found


def read_state(step: Path) -> dict[str, Any]:
    """The state of a step; ValueError when it is damaged."""
    state = read_json(step / "state.json")
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise ValueError("state.json has no step")
    return state


def _damage(step: Path) -> str | None:
    """What is wrong with a step; None if nothing is. Steps of earlier versions have no checksums: those are read as far as it tells."""
    name = "state.json"
    try:
        read_state(step)
        for name in ("weights.safetensors", "optimizer.safetensors"):
            with safe_open(step / name, "pt"):  # the lengths fit
                pass
        for sum_file in sorted(step.glob(f"*{_SUM}")):
            name = sum_file.name.removesuffix(_SUM)
            if int(sum_file.read_text(), 16) != _crc(step / name):
                return f"the checksum of {name} differs"
    except PermissionError:
        raise
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError, SafetensorError):
        return f"{name} can't be read"
    return None


def load_step(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """Weights, optimiser state and `state` of the latest undamaged step; None when there is none."""
    latest = last_sound_step(folder)
    if latest is None:
        return None
    return load_file(latest / "weights.safetensors"), load_file(latest / "optimizer.safetensors"), read_state(latest)


def save_final(
    folder: Path,
    weights: Mapping[str, Tensor],
    trial: Mapping[str, Any],
    state: Mapping[str, Any],
    tokenizer_json: bytes,
    streams: Streams | None = None,
) -> None:
    """Save the trained model, its config, how it ended and its tokenizer, beside the steps; `streams` are weights too."""
    _write_folder(folder / FINAL, {"weights": weights}, final_files(trial, state, tokenizer_json), streams)


def final_files(trial: Mapping[str, Any], state: Mapping[str, Any], tokenizer_json: bytes) -> dict[str, bytes]:
    """What a final checkpoint holds besides the weights."""
    return {"trial.json": to_json(trial), "state.json": to_json(state), "tokenizer.json": tokenizer_json}


def discard_steps(folder: Path) -> None:
    """Remove everything but the final model."""
    if folder.exists():
        for other in folder.iterdir():
            if other.name != FINAL:
                shutil.rmtree(other, ignore_errors=True)
