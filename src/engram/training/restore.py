"""A trained model from its final checkpoint alone, without the corpus it was trained on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer

from engram.config import TrialConfig
from engram.errors import UserError
from engram.model import Transformer
from engram.tokenizer.bpe import end_of_text_id, fingerprint, load_tokenizer, vocabulary_size
from engram.tokenizer.compression import compress_vocabulary
from engram.training.checkpoint import FINAL

_EXPECTED = "expected is the folder of a finished trial, results/SWEEP/checkpoints/TRIAL, or `final` in it"


@dataclass(frozen=True, eq=False)
class Restored:
    """A trained model and what using it takes."""

    folder: Path
    """The final checkpoint that was read."""
    model: Transformer
    """In evaluation mode."""
    tokenizer: Tokenizer
    """Encodes as in training: "<|endoftext|>" inside a text is text."""
    trial: TrialConfig
    end_of_text_id: int


def load_final(checkpoint: Path, device: torch.device) -> Restored:
    """The model of a finished trial, on `device`.

    Args:
        checkpoint: the trial's checkpoint folder or the folder `final` in it.
        device: where the model goes.

    Raises UserError when there is no final checkpoint, or one that is damaged or of another version of this program.
    """
    try:
        folder = final_folder(checkpoint)
        trial = read_trial(folder)
        tokenizer = _read_tokenizer(folder, trial)
        end = end_of_text_id(tokenizer)
        model = Transformer(trial.model, torch.from_numpy(compress_vocabulary(tokenizer)), end)
        _load_weights(model, folder)
    except OSError as problem:
        raise UserError(f"checkpoint {checkpoint} can't be read: {problem.strerror or problem}") from None
    return Restored(folder, model.to(device).eval(), tokenizer, trial, end)


def final_folder(checkpoint: Path) -> Path:
    """The folder `final` of a trial's checkpoint folder, or that folder itself; UserError when there is none."""
    if not checkpoint.is_dir():
        what = "is a file" if checkpoint.exists() else "does not exist"
        raise UserError(f"checkpoint {checkpoint} {what}; {_EXPECTED}")
    for folder in (checkpoint / FINAL, checkpoint):
        if (folder / "trial.json").is_file():
            return folder
    if any(checkpoint.glob("step-*")) or (checkpoint / "optimizer.safetensors").is_file():
        raise UserError(
            f"the trial of checkpoint {checkpoint} has not finished; `engramctl sweep` continues it (an extension: `engramctl extend`)"
        )
    raise UserError(f"{checkpoint} is not a checkpoint; {_EXPECTED}")


def read_trial(folder: Path) -> TrialConfig:
    """Config of the trial of a `final` folder; UserError when it is damaged or of another version, OSError when it can't be read."""
    try:
        return TrialConfig.model_validate_json((folder / "trial.json").read_bytes())
    except ValidationError as problem:
        error = problem.errors()[0]
        if error["type"] == "json_invalid":
            raise _damaged(folder, "trial.json is not JSON") from None
        where = ".".join(["trial.json", *map(str, error["loc"])])
        raise _other_version(folder, f"{where}: {error['msg'].removeprefix('Value error, ')}") from None


def _read_tokenizer(folder: Path, trial: TrialConfig) -> Tokenizer:
    file = (folder / "tokenizer.json").absolute()
    if not file.is_file():
        raise _other_version(folder, "it has no tokenizer.json")
    tokenizer = load_tokenizer(str(file))
    if fingerprint(tokenizer) != trial.tokenizer_fingerprint or vocabulary_size(tokenizer) != trial.model.vocab_size:
        raise UserError(f"checkpoint {folder}: tokenizer.json is not the tokenizer that the model was trained with")
    tokenizer.encode_special_tokens = True  # not kept in the file
    return tokenizer


def _load_weights(model: Transformer, folder: Path) -> None:
    file = folder / "weights.safetensors"
    if not file.is_file():
        raise _damaged(folder, "it has no weights.safetensors")
    try:
        weights = load_file(file)
    except SafetensorError as problem:
        raise _damaged(folder, f"weights.safetensors: {problem}") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            shapes = f"{found.get(name, 'nothing')} instead of {wanted.get(name, 'nothing')}"
            raise _other_version(folder, f"weight {name} is {shapes}")
    model.load_state_dict(weights)


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"checkpoint {folder} is damaged: {why}")


def _other_version(folder: Path, why: str) -> UserError:
    return UserError(f"checkpoint {folder} is of another version of this program: {why}; use that version, or train again")
