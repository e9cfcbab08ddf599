"""Checkpoints of a trial that several processes train: the first writes what all have in common, each writes its shard of the tables.

`step-<n>/` holds the files of `engram.training.checkpoints.files` without the tables, and `shard-<k>-of-<count>.safetensors` of each
process: its rows and their moments. `final/` is the same as a single process writes.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from engram.errors import UserError
from engram.files import naming, publish
from engram.memory.sharded import ShardedTables
from engram.processes import Processes
from engram.training.checkpoints import files
from engram.training.checkpoints.tensor_file import Form, write_tensors

_ROWS = "rows/"
_STEPS = "rows/steps"
_WEIGHT, _OPTIMIZER = "weight/", "optimizer/"


def save_step(
    folder: Path, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any], processes: Processes
) -> None:
    """As `files.save_step`, called by every process; a kill at any moment leaves either this step or the previous one complete."""
    if processes.count == 1:
        files.save_step(folder, step, weights, optimizer, state)
        return
    target = files.step_folder(folder, step)
    moments = {name for name in optimizer if name.startswith(_ROWS) and name != _STEPS}
    tables = {f"{name.removeprefix(_ROWS).rpartition('/')[0]}.weight" for name in moments}
    shard = {_WEIGHT + name: weights[name] for name in tables} | {_OPTIMIZER + name: optimizer[name] for name in moments}
    with _Common(target, processes) as temporary:
        tensors: dict[str, Mapping[str, Tensor]] = {_shard_name(processes): shard}
        documents = {}
        if processes.first:
            tensors["weights"] = {name: value for name, value in weights.items() if name not in tables}
            tensors["optimizer"] = {name: value for name, value in optimizer.items() if name not in moments}
            documents["state.json"] = files.to_json({**state, "processes": processes.count})
        files.write_files(temporary, tensors, documents)
        files.write_sums(temporary, [*(f"{name}.safetensors" for name in tensors), *documents])
    if processes.first:
        files.discard_others(target)


def load_step(
    folder: Path, processes: Processes, tell: Callable[[str], None] = files.warn
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """As `files.load_step`, with this process's rows; all processes read the step that the first one finds, and it alone tells.

    Raises UserError when another number of processes wrote it.
    """
    latest = files.last_sound_step(folder, tell) if processes.first else None
    step = processes.of_first(-1 if latest is None else int(latest.name.removeprefix("step-")))
    if step < 0:
        return None
    latest = files.step_folder(folder, step)
    state = _state(latest, processes.count)
    weights, optimizer = load_file(latest / "weights.safetensors"), load_file(latest / "optimizer.safetensors")
    if processes.count > 1:
        shard = load_file(latest / f"{_shard_name(processes)}.safetensors")
        weights |= {name.removeprefix(_WEIGHT): value for name, value in shard.items() if name.startswith(_WEIGHT)}
        optimizer |= {name.removeprefix(_OPTIMIZER): value for name, value in shard.items() if name.startswith(_OPTIMIZER)}
    return weights, optimizer, state


def save_final(
    folder: Path,
    model: nn.Module,
    trial: Mapping[str, Any],
    state: Mapping[str, Any],
    tokenizer_json: bytes,
    processes: Processes,
    streams: files.Streams | None = None,
) -> None:
    """As `files.save_final`, called by every process; sharded tables are gathered piece by piece, straight into the file."""
    if processes.count == 1:
        files.save_final(folder, model.state_dict(), trial, state, tokenizer_json, streams)
        return
    tables = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, ShardedTables)}
    weights = {name: value for name, value in model.state_dict().items() if name not in tables}
    forms = {name: Form((table.n_rows, table.weight.shape[1]), table.weight.dtype) for name, table in tables.items()}
    with _Common(folder / files.FINAL, processes) as temporary:
        pieces: Iterator[tuple[str, Iterable[Tensor]]] = ((name, table.whole()) for name, table in tables.items())
        if processes.first:
            write_tensors(temporary / "weights.safetensors", weights, forms, pieces)
            files.write_files(temporary, {}, files.final_files(trial, state, tokenizer_json))
        else:
            for _, table in pieces:
                for _ in table:
                    pass


def check_begun(folder: Path, count: int) -> None:
    """UserError unless `count` processes can continue from the latest step, if there is one."""
    latest = files.last_step(folder)
    if latest is not None:
        with suppress(OSError, json.JSONDecodeError, UnicodeDecodeError):  # training will pass over a damaged one
            _state(latest, count)


def _state(step: Path, count: int) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((step / "state.json").read_text())
    wrote = state.get("processes", 1) if isinstance(state, dict) else count
    if wrote != count:
        raise UserError(
            f"checkpoint {step} is of a trial on {wrote} device{'s' * (wrote > 1)}, not {count}: continue with as many, or remove it"
        )
    return state


def _shard_name(processes: Processes) -> str:
    return f"shard-{processes.rank}-of-{processes.count}"


class _Common:
    """A temporary folder that all processes write into; when all have left the block, it is renamed to `target`.

    When a block fails, its process ends, and with it the others.
    """

    def __init__(self, target: Path, processes: Processes) -> None:
        self.target, self.processes = target, processes
        self.temporary = target.with_name(f".{target.name}.tmp")

    def __enter__(self) -> Path:
        if self.processes.first:
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary.mkdir(parents=True)
        self.processes.wait()
        return self.temporary

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            if self.processes.first:
                shutil.rmtree(self.temporary, ignore_errors=True)
            return
        self.processes.wait()
        if self.processes.first:
            with naming(self.target):
                publish(self.temporary, self.target)
        self.processes.wait()
