"""The work of `engramctl extend`: train the extension of a trial, measure both models, write the row."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus, document_windows
from engram.errors import UserError
from engram.evaluation.long_ppl import ContextLosses, context_losses, long_ppl
from engram.files import write_atomically
from engram.memory.designs.registry import NONE
from engram.model import Transformer
from engram.training.checkpoints.files import FINAL, WEIGHTS
from engram.training.checkpoints.restore import Restored
from engram.training.machine import resolve_precision
from engram.training.state import Outcome
from engram.training.trainer import Trainer
from engram.training.validation import Validator
from engramctl.cluster.events import ENDED, PROGRESS, STARTED, Event
from engramctl.results import provenance
from engramctl.results.checkpoints import ExtensionPlace
from engramctl.results.fingerprints import identity
from engramctl.results.measuring_code import measuring_code
from engramctl.results.parquet import read_identity, read_row, write_row
from engramctl.results.schema.extensions import EXTENSION_SCHEMA

_REPORT_S = 1.0


@dataclass(frozen=True)
class Extension:
    """An extension to be trained and measured."""

    source: Restored
    trial: TrialConfig
    corpus: Corpus
    place: ExtensionPlace
    reference: Restored | None
    """The model that finds LongPPL's key tokens; None: the extended one."""
    val_tokens: int
    """Most tokens of long validation documents that LongPPL is measured on."""

    def __post_init__(self) -> None:
        length = self.trial.train.seq_len
        for split, starts in (("training", self.corpus.train_doc_starts), ("validation", self.corpus.val_doc_starts)):
            lengths = np.diff(starts)
            if not (lengths >= length).any():
                raise UserError(
                    f"--length is {length}, but the longest of the corpus's {len(lengths)} {split} documents has {lengths.max()} tokens:"
                    f" nothing in it teaches a longer context"
                )
        reference = self.reference
        if reference is not None and reference.trial.tokenizer_fingerprint != self.trial.tokenizer_fingerprint:
            raise UserError(f"--reference {reference.folder} has another tokenizer; a model of the same tokens is needed")
        if reference is not None and (reads := reference.trial.train.seq_len) < length:
            raise UserError(f"--reference {reference.folder} reads {reads} tokens; one that reads {length} is needed")

    @property
    def documents(self) -> np.ndarray:
        """The long validation documents to measure on, int64 [n, L + 1]."""
        return document_windows(self.corpus, self.trial.train.seq_len, self.val_tokens)

    @property
    def reference_id(self) -> str:
        return self.trial.id if self.reference is None else self.reference.trial.id

    @property
    def trained_from(self) -> str:
        """What the training depends on, as its identity: the config and the source's weights."""
        weights = self.source.folder / WEIGHTS
        return identity("extension", {"trial": self.trial.model_dump(mode="json"), "source": weights})

    @property
    def measured(self) -> str:
        """What the row of the trained extension depends on, as its identity: the weights of all models, the text, the code."""
        parts = {
            "trained": self.trained_from,
            "weights": self.place.checkpoint / FINAL / WEIGHTS,
            "reference": None if self.reference is None else self.reference.folder / WEIGHTS,
            "documents": len(self.documents),
            "code": measuring_code("engram.evaluation.long_ppl", "engram.training.validation"),
        }
        return identity("measured extension", parts)

    @property
    def row(self) -> dict[str, Any] | None:
        """The row of the extension if it is trained, measured as it may be; None too if it was trained from other weights."""
        begun = self._begun()
        if not (self.place.checkpoint / FINAL).is_dir() or begun not in (None, self.trained_from):
            return None
        return read_row(self.place.record, EXTENSION_SCHEMA)

    @property
    def is_measured(self) -> bool:
        """Whether the row there is was measured in the way that is asked for now; one of an earlier version does not say."""
        return read_identity(self.place.record) == self.measured

    def begin(self) -> None:
        """Note what is trained from which weights; what was trained from others, or doesn't say, is removed."""
        begun = self._begun()
        if begun != self.trained_from:
            if begun is not None:
                self.place.record.unlink(missing_ok=True)
            for old in self.place.checkpoint.glob("*"):
                shutil.rmtree(old, ignore_errors=True)
            write_atomically(self._note, self.trained_from.encode())

    def abandon(self) -> None:
        """Keep nothing."""
        self._note.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.place.checkpoint / ".trained-from"

    def _begun(self) -> str | None:
        try:
            return self._note.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None


def train_extension(todo: Extension, device: torch.device, checkpoint_s: float, on_event: Callable[[Event], None]) -> dict[str, Any] | str:
    """Train, from the last checkpoint if there is one, measure, and write model and row. Returns the row, or why training diverged."""
    todo.begin()
    key, before = todo.trial.id, _measure(todo, todo.source.model, device)
    trainer = Trainer(todo.trial, todo.corpus, todo.place.checkpoint, device, checkpoint_s, initial=todo.source.model.state_dict())
    on_event(Event(key, STARTED))
    while not trainer.done:
        at = trainer.advance(_REPORT_S)
        event = Event(key, PROGRESS, at.step, at.steps, train_loss=at.train_loss, tokens_per_s=at.tokens_per_s, note=at.note)
        on_event(event)
    outcome = trainer.outcome()
    val_loss = outcome.values.get("val_loss")
    on_event(Event(key, ENDED, done=trainer.state.step, status=outcome.status, error=outcome.error or "", val_loss=val_loss))
    if outcome.error is not None:
        trainer.discard_checkpoints()
        todo.abandon()
        return outcome.error
    row = _planned(todo, device) | _trained(outcome, device) | _outcome(todo, before, _measure(todo, trainer.model, device), device)
    write_row(todo.place.record, EXTENSION_SCHEMA, row, todo.measured)
    trainer.discard_checkpoints()
    return row


def measure_again(todo: Extension, trained: Transformer, row: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Measure a finished extension with another reference or on other documents; writes and returns its row."""
    row = row | _outcome(todo, _measure(todo, todo.source.model, device), _measure(todo, trained, device), device)
    write_row(todo.place.record, EXTENSION_SCHEMA, row, todo.measured)
    return row


@dataclass(frozen=True)
class _Measured:
    val_loss_short: float
    val_loss: float
    losses: ContextLosses


def _measure(todo: Extension, model: Transformer, device: torch.device) -> _Measured:
    train, short = todo.trial.train, todo.source.trial.train
    autocast = _autocast(todo, device)
    at_short, at_long = (Validator(todo.corpus, t).validate(model, autocast).loss for t in (short, train))
    return _Measured(at_short, at_long, context_losses(model, todo.documents, short.seq_len, autocast))


def _autocast(todo: Extension, device: torch.device) -> torch.autocast:
    bf16 = resolve_precision(todo.trial.train.precision, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def _planned(todo: Extension, device: torch.device) -> dict[str, Any]:
    trial, source, corpus, length = todo.trial, todo.source.trial, todo.corpus, todo.trial.train.seq_len
    yarn, memory = trial.model.attention.rope.yarn, trial.model.memory
    assert yarn is not None
    return {
        "trial_id": trial.id,
        "source_trial_id": source.id,
        "sweep": todo.place.sweep.sweep if todo.place.sweep else None,
        "size": trial.size,
        "rho": trial.rho,
        "variant": trial.variant,
        "seed": trial.seed,
        "memory_design": memory.design if memory else NONE,
        "config": trial.model_dump_json(),
        "source_budget_flops": source.budget_flops,
        "source_tokens": source.train.tokens,
        "source_length": source.train.seq_len,
        "length": length,
        "yarn_scale": yarn.scale,
        "steps": trial.train.steps,
        "batch_size": trial.train.batch_size,
        "tokens": trial.train.tokens,
        "learning_rate": trial.train.learning_rate,
        "train_flops": trial.budget_flops,
        "train_documents": len(corpus.train_doc_starts) - 1,
        "train_long_documents": int((np.diff(corpus.train_doc_starts) >= length).sum()),
        "val_documents": len(corpus.val_doc_starts) - 1,
        "val_long_documents": int((np.diff(corpus.val_doc_starts) >= length).sum()),
        "git_sha": provenance.git_sha(),
        "corpus_fingerprint": trial.corpus_fingerprint,
        "tokenizer_fingerprint": trial.tokenizer_fingerprint,
        "versions": provenance.versions(str(device)),
        "hostname": provenance.hostname(),
    }


def _trained(outcome: Outcome, device: torch.device) -> dict[str, Any]:
    kept = ("train_loss", "wall_s", "tokens_per_s", "n_restarts", "precision", "started_at")
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    return {name: outcome.values[name] for name in kept} | {"device": str(device), "finished_at": ended}


def _outcome(todo: Extension, before: _Measured, after: _Measured, device: torch.device) -> dict[str, Any]:
    reference = after.losses
    if todo.reference is not None:
        reference = context_losses(todo.reference.model, todo.documents, reference.short_length, _autocast(todo, device))
    old, new = long_ppl(before.losses, reference), long_ppl(after.losses, reference)
    return {
        "val_loss_short_before": before.val_loss_short,
        "val_loss_short_after": after.val_loss_short,
        "val_loss_before": before.val_loss,
        "val_loss_after": after.val_loss,
        "long_documents": new.documents,
        "long_tokens": new.tokens,
        "short_ppl_before": old.short_ppl,
        "short_ppl_after": new.short_ppl,
        "ppl_before": old.ppl,
        "ppl_after": new.ppl,
        "reference_trial_id": todo.reference_id,
        "key_tokens": new.key_tokens,
        "key_share": new.key_share,
        "long_ppl_before": old.long_ppl,
        "long_ppl_after": new.long_ppl,
        "gain_by_position": new.gain_by_position,
    }
