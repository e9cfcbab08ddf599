"""How much of the validation text stands in training as an exact n-gram of tokens."""

import numpy as np

from engram.corpus.rolling import HashSet, spread, window_blocks, window_hashes

_MOST_TOKENS = 16_000_000
"""Validation tokens whose n-grams are held at once; more take a further pass over the training tokens."""


def token_overlap(train: np.ndarray, val: np.ndarray, val_doc_starts: np.ndarray, most_tokens: int, vocab_size: int, n: int) -> np.ndarray:
    """Share of each validation document's tokens that lie in an n-gram of training, float64 [documents].

    Only n-grams of validation are held in memory; those of training stream past them. N-grams of training run across document boundaries.

    Args:
        train: training tokens [n].
        val: validation tokens [m].
        val_doc_starts: first token of each validation document, and the end of the last, int64 [documents + 1].
        most_tokens: tokens to look at, from the beginning of each document.
        vocab_size: number of different tokens.
        n: length of the n-grams, in tokens.
    """
    values = spread(np.arange(vocab_size))
    lengths = np.minimum(np.diff(val_doc_starts), most_tokens)
    shares = []
    for part in np.split(np.arange(len(lengths)), _cuts(lengths)):
        grams = [window_hashes(val[val_doc_starts[d] : val_doc_starts[d] + lengths[d]], values, n) for d in part]
        known = HashSet(np.concatenate(grams))
        for block in window_blocks(train, values, n):
            known.meet(block)
        shares += [_covered(known.met(hashes), n) / lengths[d] for hashes, d in zip(grams, part, strict=True)]
    return np.array(shares, dtype=np.float64)


def _cuts(lengths: np.ndarray) -> np.ndarray:
    """Where documents are to be divided so that each part has about `_MOST_TOKENS` tokens at most."""
    parts = (np.cumsum(lengths) - lengths) // _MOST_TOKENS
    return np.flatnonzero(np.diff(parts)) + 1


def _covered(met: np.ndarray, n: int) -> int:
    """Tokens that lie in one of the n-grams, given which n-gram starts in turn were met, bool [n-grams]."""
    starts = np.flatnonzero(met)
    ends = np.minimum(starts + n, np.append(starts[1:], np.iinfo(np.int64).max))  # where the next one begins, if that is earlier
    return int((ends - starts).sum())
