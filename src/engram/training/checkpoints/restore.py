"""Loads a trained model from its final checkpoint alone, without the corpus it was trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from engram.config.errors import explain
from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.foreign_files import read_bytes
from engram.memory.placement.row_file import RowSpec
from engram.memory.placement.rows import Rows
from engram.memory.placement.serving import ServedTables, disk_rows, host_rows, serve
from engram.memory.placement.settings import ServingPlacement
from engram.memory.tables import EmbeddingTables
from engram.model import Transformer
from engram.scaling.accounting import count_parameters
from engram.tokenizer.bpe import end_of_text_id, fingerprint, load_tokenizer, vocabulary_size
from engram.tokenizer.compression import compress_vocabulary
from engram.training.checkpoints.files import FINAL

_PIECE_NUMBERS = 1 << 22
_LEAST_BYTES = 2
"""Of a parameter in a file of weights."""
_EXPECTED = "expected is the folder of a finished trial, results/SWEEP/checkpoints/TRIAL, or `final` in it"


@dataclass(frozen=True, eq=False)
class Restored:
    """A trained model and what is needed to use it."""

    folder: Path
    """The final checkpoint that was read."""
    model: Transformer
    """In evaluation mode."""
    tokenizer: Tokenizer
    """`engram.tokenizer.plain` encodes with it as in training: "<|endoftext|>" inside a text is plain text."""
    trial: TrialConfig
    end_of_text_id: int
    served: ServedTables | None = None
    """Its tables, if they are outside the model; to be closed by the caller."""


def load_final(checkpoint: Path, device: torch.device, placement: ServingPlacement | None = None) -> Restored:
    """The model of a finished trial, on `device`.

    Args:
        checkpoint: the trial's checkpoint folder or the folder `final` in it.
        device: where the model goes.
        placement: where its memory tables are kept; None: in the model. Table files are written once, beside the checkpoint's weights.

    Raises UserError when there is no final checkpoint, or one that is damaged or of another version of this program.
    """
    apart = placement is not None and placement.kind != "process"
    try:
        folder = final_folder(checkpoint)
        trial = read_trial(folder)
        _require_room(trial, folder)
        tokenizer = _read_tokenizer(folder, trial)
        end = end_of_text_id(tokenizer)
        kind = partial(EmbeddingTables, device="meta") if apart else EmbeddingTables
        model = Transformer(trial.model, torch.from_numpy(compress_vocabulary(tokenizer)), end, kind)
        _load_weights(model, folder)
        served = _serve(model, folder, trial.id, placement) if apart and placement is not None and model.lookup is not None else None
    except OSError as problem:
        raise UserError(f"checkpoint {checkpoint} can't be read: {problem.strerror or problem}") from None
    return Restored(folder, model.to(device).eval(), tokenizer, trial, end, served)


def final_folder(checkpoint: Path) -> Path:
    """The folder `final` of a trial's checkpoint folder, or that folder itself; UserError when there is none."""
    if not checkpoint.is_dir():
        what = "is a file" if checkpoint.exists() else "does not exist"
        raise UserError(f"checkpoint {checkpoint} {what}; {_EXPECTED}")
    for folder in (checkpoint / FINAL, checkpoint):
        if (folder / "trial.json").is_file():
            return folder
    if any(checkpoint.glob("step-*")) or (checkpoint / "optimizer.safetensors").is_file():
        raise UserError(f"the trial of checkpoint {checkpoint} has not finished; continue the sweep or the extension that trains it")
    raise UserError(f"{checkpoint} is not a checkpoint; {_EXPECTED}")


def read_trial(folder: Path) -> TrialConfig:
    """Config of the trial of a `final` folder; UserError when it is damaged or of another version, OSError when it can't be read."""
    try:
        return TrialConfig.model_validate_json(read_bytes(folder / "trial.json"))
    except ValidationError as problem:
        error = problem.errors()[0]
        if error["type"] == "json_invalid":
            raise _damaged(folder, "trial.json is not JSON") from None
        raise _other_version(folder, f"trial.json{'.' if error['loc'] else ': '}{explain(problem)}") from None


def _read_tokenizer(folder: Path, trial: TrialConfig) -> Tokenizer:
    file = (folder / "tokenizer.json").absolute()
    if not file.is_file():
        raise _other_version(folder, "it has no tokenizer.json")
    tokenizer = load_tokenizer(str(file))
    if fingerprint(tokenizer) != trial.tokenizer_fingerprint or vocabulary_size(tokenizer) != trial.model.vocab_size:
        raise UserError(f"checkpoint {folder}: tokenizer.json is not the tokenizer that the model was trained with")
    tokenizer.encode_special_tokens = True  # not kept in the file
    return tokenizer


def _require_room(trial: TrialConfig, folder: Path) -> None:
    """UserError when the weights can't be those of the trial's model, before memory is taken for it."""
    file = folder / "weights.safetensors"
    if not file.is_file():
        raise _damaged(folder, "it has no weights.safetensors")
    parameters, size = count_parameters(trial.model).p_total, file.stat().st_size
    if size < parameters * _LEAST_BYTES:
        raise _damaged(folder, f"weights.safetensors: it has {size:,} bytes, too few for the {parameters:,} parameters of trial.json")


def _load_weights(model: Transformer, folder: Path) -> None:
    file = folder / "weights.safetensors"
    with file.open("rb"):  # safetensors says "No such file" where reading is not allowed
        pass
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    apart = {f"{name}.weight": tuple(table.weight.shape) for name, table in model.named_tables().items() if table.weight.is_meta}
    wanted |= apart
    try:
        with safe_open(file, "pt") as opened:
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118  # no mapping
            weights = {name: opened.get_tensor(name) for name in found.keys() - apart.keys()}
    except SafetensorError as problem:
        raise _damaged(folder, f"weights.safetensors: {problem}") from None
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            shapes = f"{found.get(name, 'nothing')} instead of {wanted.get(name, 'nothing')}"
            raise _other_version(folder, f"weight {name} is {shapes}")
    model.load_state_dict(weights)


def _serve(model: Transformer, folder: Path, trial: str, placement: ServingPlacement) -> ServedTables:
    """Let the model, whose tables are on the meta device, read them from where `placement` says."""
    assert model.lookup is not None
    placement.check_memory()
    rows: list[Rows] = []
    cache_bytes = placement.cache_bytes // len(model.named_tables())
    for name, table in model.named_tables().items():
        pieces = _pieces(folder / "weights.safetensors", f"{name}.weight")
        n, row_dim = table.weight.shape
        if placement.kind == "host":
            rows.append(host_rows(pieces, n, row_dim, placement.row_format))
        else:
            spec = RowSpec(f"{trial}/{name}", n, row_dim, placement.row_format)
            rows.append(disk_rows(folder / f"{name}.{placement.row_format}.rows", pieces, spec, cache_bytes))
    return serve(model.lookup, rows, placement.prefetch)


def _pieces(file: Path, name: str) -> Iterator[Tensor]:
    """The rows of a matrix in a safetensors file in order, fp32 [n, r] at a time."""
    with safe_open(file, "pt") as opened:
        matrix = opened.get_slice(name)
        rows, row_dim = matrix.get_shape()
        at_once = max(1, _PIECE_NUMBERS // row_dim)
        for first in range(0, rows, at_once):
            yield matrix[first : first + at_once].float()


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"checkpoint {folder} is damaged: {why}")


def _other_version(folder: Path, why: str) -> UserError:
    return UserError(f"checkpoint {folder} is of another version of this program: {why}; use that version, or train again")
