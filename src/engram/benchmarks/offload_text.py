"""The sequences that inference is measured on: pieces of real text, batched by length."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from engram.corpus.dataset import Corpus
from engram.errors import UserError

SHORTEST, LONGEST = 100, 1024
"""Tokens of a sequence (paper, Table 4)."""
_PASS_TOKENS = 4096
_WARM_BATCH = 32

Pass = tuple[Tensor, Tensor]
"""Tokens int64 [b, T], padded on the right, and the length of each sequence int64 [b]."""


def sequences(corpus: Corpus, count: int, seed: int) -> list[np.ndarray]:
    """Pieces of the first half of the training text, int64 [n] with n uniform in `SHORTEST` .. `LONGEST`.

    Raises UserError when there is too little text.
    """
    generator = np.random.default_rng([seed, 0])
    lengths = generator.integers(SHORTEST, LONGEST + 1, size=count)
    half = len(corpus.train) // 2
    if half < 4 * LONGEST:
        raise UserError(f"the training text has {len(corpus.train):,} tokens; at least {8 * LONGEST:,} are needed")
    starts = generator.integers(0, half - LONGEST, size=count)
    return [np.asarray(corpus.train[start : start + n]).astype(np.int64) for start, n in zip(starts, lengths, strict=True)]


def passes(texts: Sequence[np.ndarray]) -> Iterator[Pass]:
    """Sequences of similar length together, `_PASS_TOKENS` or one sequence at a time."""
    waiting: list[np.ndarray] = []
    for text in sorted(texts, key=len):
        if waiting and len(text) * (len(waiting) + 1) > _PASS_TOKENS:
            yield _padded(waiting)
            waiting = []
        waiting.append(text)
    if waiting:
        yield _padded(waiting)


def _padded(texts: Sequence[np.ndarray]) -> Pass:
    lengths = torch.tensor([len(text) for text in texts])
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(text) for text in texts], batch_first=True), lengths


def other_text(corpus: Corpus) -> Iterator[Tensor]:
    """The second half of the training text, which `sequences` leaves alone: tokens int64 [b, T] at a time."""
    half, at_once = len(corpus.train) // 2, _WARM_BATCH * LONGEST
    for start in range(half, len(corpus.train) - at_once, at_once):
        yield torch.from_numpy(np.asarray(corpus.train[start : start + at_once]).astype(np.int64)).view(_WARM_BATCH, LONGEST)
