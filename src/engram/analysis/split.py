"""The validation tokens of a checkpoint, the same that its training validated on."""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from engram.corpus.dataset import Corpus, validation_windows
from engram.errors import UserError
from engram.training.checkpoints.restore import Restored
from engram.training.validation import sequences_at_once, token_losses


@dataclass(frozen=True, eq=False)
class ValidationSplit:
    """Windows of T + 1 tokens: the model reads T and predicts T."""

    windows: np.ndarray
    """int64 [n, T + 1]"""
    target_document: np.ndarray
    """Document of each target, int64 [n, T]."""

    @property
    def inputs(self) -> np.ndarray:
        """int64 [n, T]"""
        return self.windows[:, :-1]

    @property
    def targets(self) -> np.ndarray:
        """int64 [n, T]"""
        return self.windows[:, 1:]


def validation_split(restored: Restored, corpus: Corpus, max_tokens: int | None = None) -> ValidationSplit:
    """The checkpoint's validation windows; UserError when the corpus is not the one it was trained on.

    Args:
        restored: says how long a window is and how many tokens were validated on.
        corpus: the prepared corpus of its training.
        max_tokens: fewer tokens than in training, for a quicker look.
    """
    check_corpus(restored, corpus)
    train = restored.trial.train
    limit = train.val_tokens if max_tokens is None else min(max_tokens, train.val_tokens)
    return ValidationSplit(*validation_windows(corpus, train.seq_len, limit))


def split_losses(restored: Restored, split: ValidationSplit) -> np.ndarray:
    """Loss of every target in nats, fp32 arithmetic: float64 [n, T]."""
    return token_losses(restored.model, split.windows, sequences_at_once(restored.trial.train), nullcontext()).astype(np.float64)


def check_corpus(restored: Restored, corpus: Corpus) -> None:
    """UserError when the corpus or its tokenizer is not the one that the checkpoint was trained with."""
    trial = restored.trial
    for what, own, given in (
        ("tokenizer", trial.tokenizer_fingerprint, corpus.tokenizer_fingerprint),
        ("corpus", trial.corpus_fingerprint, corpus.fingerprint),
    ):
        if own != given:
            raise UserError(
                f"checkpoint {restored.folder} was trained with {what} {own[:12]}, this corpus has {given[:12]}; give its own corpus"
            )
