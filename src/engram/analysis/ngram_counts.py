"""How often the N-grams that a memory reads occur in its training text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from engram.analysis.capture import memory_sites
from engram.corpus.dataset import Corpus
from engram.corpus.statistics import MAX_NGRAM_TOKENS
from engram.memory.lookup import MemoryLookup
from engram.model import Transformer

_CHUNK = 2**20
"""Tokens whose N-grams are formed at a time."""


@dataclass(frozen=True, eq=False)
class Occurrences:
    """The distinct N-grams of one order in a text."""

    mixes: np.ndarray
    """The number that stands for each N-gram (`NgramHash.mixes`), ascending, int64 [U]; its row in a table of p rows is `mix mod p`."""
    counts: np.ndarray
    """int64 [U]"""

    @classmethod
    def count(cls, mixes: np.ndarray) -> Self:
        """Count the mixes int64 [T] of a text."""
        return cls(*np.unique(mixes, return_counts=True))

    def of(self, mixes: np.ndarray) -> np.ndarray:
        """How often each of other mixes int64 [...] occurs, int64 [...]."""
        places = np.searchsorted(self.mixes, mixes).clip(max=len(self.mixes) - 1)
        return np.where(self.mixes[places] == mixes, self.counts[places], 0)


@dataclass(frozen=True, eq=False)
class NgramCounts:
    """Counts of tokens and of N-grams in the training split, N-grams as one set of tables hashes them."""

    lookup: MemoryLookup
    token_counts: np.ndarray
    """Occurrences of each raw token, int64 [V]."""
    orders: dict[int, Occurrences]
    """By order 2..N"""

    def of_inputs(self, inputs: np.ndarray) -> dict[int, np.ndarray]:
        """Occurrences of the N-gram that ends at each token, by order: int64 [n, T] each; -1 where it would begin before the window."""
        counts = {}
        for order, mixes in _mixes(self.lookup, inputs, table_set=0).items():
            counts[order] = self.orders[order].of(mixes)
            counts[order][:, : order - 1] = -1
        return counts


def count_ngrams(model: Transformer, corpus: Corpus) -> NgramCounts:
    """Count the N-grams that the model's memory reads over the first 20 M tokens of the training split (`MAX_NGRAM_TOKENS`).

    They run across document boundaries, as in training. Raises UserError when the model has no memory.
    """
    lookup = checked_lookup(model)
    tokens = np.asarray(corpus.train[:MAX_NGRAM_TOKENS])
    orders = {order: Occurrences.count(mixes) for order, mixes in training_mixes(lookup, corpus, table_set=0)}
    return NgramCounts(lookup, np.bincount(tokens, minlength=corpus.vocab_size), orders)


def checked_lookup(model: Transformer) -> MemoryLookup:
    """The model's lookup; UserError when it has no memory."""
    memory_sites(model)
    assert model.lookup is not None
    return model.lookup


def training_mixes(lookup: MemoryLookup, corpus: Corpus, table_set: int) -> Iterator[tuple[int, np.ndarray]]:
    """Each order and the mixes int64 [T] of its N-grams over the first `MAX_NGRAM_TOKENS` training tokens, as hashed by a set of tables."""
    tokens = corpus.train[:MAX_NGRAM_TOKENS]
    whole = {order: np.empty(len(tokens), dtype=np.int64) for order in range(2, lookup.hash.max_ngram + 1)}
    overlap = lookup.hash.max_ngram - 1
    for start in range(0, len(tokens), _CHUNK):
        first = max(0, start - overlap)
        part = _mixes(lookup, tokens[first : start + _CHUNK].astype(np.int64)[None], table_set)
        for order, mixes in part.items():
            whole[order][start : start + _CHUNK] = mixes[0, start - first :]
    while whole:
        order = min(whole)
        yield order, whole.pop(order)


def _mixes(lookup: MemoryLookup, inputs: np.ndarray, table_set: int) -> dict[int, np.ndarray]:
    """Tokens int64 [n, T] -> mixes of their N-grams by order, int64 [n, T]."""
    ids = lookup.compression[torch.from_numpy(np.ascontiguousarray(inputs)).to(lookup.compression.device)]
    mixes = lookup.hash.mixes(ids)[table_set].cpu().numpy()  # [n, T, N - 1]
    return {order: mixes[..., order - 2].copy() for order in range(2, lookup.hash.max_ngram + 1)}
