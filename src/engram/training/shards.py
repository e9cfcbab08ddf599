"""Checkpoints of a trial that several processes train: the first writes what all have, each its shard of the tables.

`step-<n>/` holds the files of `engram.training.checkpoint` without the tables, and `shard-<k>-of-<count>.safetensors` of each
process: its rows and their moments. `final/` is the same as that of one process.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from engram.errors import UserError
from engram.memory.sharded import ShardedTables
from engram.processes import Processes
from engram.training import checkpoint
from engram.training.tensor_file import Form, write_tensors

_ROWS = "rows/"
_STEPS = "rows/steps"
_WEIGHT, _OPTIMIZER = "weight/", "optimizer/"


def save_step(
    folder: Path, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any], processes: Processes
) -> None:
    """As `checkpoint.save_step`, called by every process; a kill at any moment leaves this step whole or the one before."""
    if processes.count == 1:
        checkpoint.save_step(folder, step, weights, optimizer, state)
        return
    target = checkpoint.step_folder(folder, step)
    moments = {name for name in optimizer if name.startswith(_ROWS) and name != _STEPS}
    tables = {f"{name.removeprefix(_ROWS).rpartition('/')[0]}.weight" for name in moments}
    shard = {_WEIGHT + name: weights[name] for name in tables} | {_OPTIMIZER + name: optimizer[name] for name in moments}
    with _Common(target, processes) as temporary:
        tensors: dict[str, Mapping[str, Tensor]] = {_shard_name(processes): shard}
        files = {}
        if processes.first:
            tensors["weights"] = {name: value for name, value in weights.items() if name not in tables}
            tensors["optimizer"] = {name: value for name, value in optimizer.items() if name not in moments}
            files["state.json"] = checkpoint.to_json({**state, "processes": processes.count})
        checkpoint.write_files(temporary, tensors, files)
    if processes.first:
        checkpoint.discard_others(target)


def load_step(folder: Path, processes: Processes) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """As `checkpoint.load_step`, with this process's rows; all processes read the step that the first one finds.

    Raises UserError when another number of processes wrote it.
    """
    latest = checkpoint.last_step(folder)
    step = processes.of_first(-1 if latest is None else int(latest.name.removeprefix("step-")))
    if step < 0:
        return None
    latest = checkpoint.step_folder(folder, step)
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
    streams: checkpoint.Streams | None = None,
) -> None:
    """As `checkpoint.save_final`, called by every process; sharded tables come together in pieces, in the file alone."""
    if processes.count == 1:
        checkpoint.save_final(folder, model.state_dict(), trial, state, tokenizer_json, streams)
        return
    tables = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, ShardedTables)}
    weights = {name: value for name, value in model.state_dict().items() if name not in tables}
    forms = {name: Form((table.n_rows, table.weight.shape[1]), table.weight.dtype) for name, table in tables.items()}
    with _Common(folder / checkpoint.FINAL, processes) as temporary:
        pieces: Iterator[tuple[str, Iterable[Tensor]]] = ((name, table.whole()) for name, table in tables.items())
        if processes.first:
            write_tensors(temporary / "weights.safetensors", weights, forms, pieces)
            checkpoint.write_files(temporary, {}, checkpoint.final_files(trial, state, tokenizer_json))
        else:
            for _, table in pieces:
                for _ in table:
                    pass


def check_begun(folder: Path, count: int) -> None:
    """UserError unless `count` processes can go on from the latest step, where there is one."""
    latest = checkpoint.last_step(folder)
    if latest is not None:
        _state(latest, count)


def _state(step: Path, count: int) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((step / "state.json").read_text())
    wrote = state.get("processes", 1)
    if wrote != count:
        raise UserError(
            f"checkpoint {step} is of a trial on {wrote} device{'s' * (wrote > 1)}, not {count}: continue with as many, or remove it"
        )
    return state


def _shard_name(processes: Processes) -> str:
    return f"shard-{processes.rank}-of-{processes.count}"


class _Common:
    """A temporary folder that all processes write into; at the end of the block it is whole and gets the name `target`."""

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
            return
        self.processes.wait()
        if self.processes.first:
            checkpoint.publish(self.temporary, self.target)
        self.processes.wait()
