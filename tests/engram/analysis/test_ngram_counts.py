from collections import Counter

import numpy as np
import pytest

from engram.analysis.ngram_counts import count_ngrams
from engram.corpus.dataset import validation_windows
from engram.errors import UserError


@pytest.mark.parametrize("memory", ["engram", "engram-v4.1", "value", "over-encoding"])
def test_ngrams_are_counted(restore, tiny_corpus, memory, monkeypatch):
    monkeypatch.setattr("engram.analysis.ngram_counts._CHUNK", 1000)
    counts = count_ngrams(restore(tiny_corpus, memory).model, tiny_corpus)
    assert np.array_equal(counts.token_counts, np.bincount(tiny_corpus.train, minlength=tiny_corpus.vocab_size))
    ids = tiny_corpus.compression[tiny_corpus.train].tolist()
    inputs = validation_windows(tiny_corpus, 16, 512)[0][:, :-1]
    found = counts.of_inputs(inputs)
    assert list(found) == ([2, 3, 4] if memory == "engram-v4.1" else [2, 3])
    canonical = tiny_corpus.compression[inputs].tolist()
    for order, occurrences in found.items():
        by_hand = Counter(zip(*(ids[k:] for k in range(order)), strict=False))
        for row, got in zip(canonical, occurrences.tolist(), strict=True):
            assert got[: order - 1] == [-1] * (order - 1)
            assert got[order - 1 :] == [by_hand[tuple(row[t - order + 1 : t + 1])] for t in range(order - 1, len(row))]


def test_without_memory(restore, tiny_corpus):
    with pytest.raises(UserError, match="the model has no memory"):
        count_ngrams(restore(tiny_corpus, "none").model, tiny_corpus)
