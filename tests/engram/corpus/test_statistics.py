from collections import Counter

import pytest

from engram.corpus import statistics
from engram.corpus.statistics import describe


def test_counts_of_ngrams(corpus, monkeypatch):
    for limit in (10**9, 500):
        monkeypatch.setattr(statistics, "MAX_NGRAM_TOKENS", limit)
        facts = describe(corpus)
        ids = corpus.compression[corpus.train[:limit]].tolist()
        assert facts["ngram_tokens"] == len(ids)
        for n, ngrams in zip((2, 3), facts["ngrams"], strict=True):
            counts = Counter(zip(*(ids[k:] for k in range(n)), strict=False))
            once = sum(count == 1 for count in counts.values())
            assert ngrams == {
                "n": n,
                "distinct": len(counts),
                "seen_once_percent": pytest.approx(100 * once / len(counts)),
                "occurrences_seen_once_percent": pytest.approx(100 * once / (len(ids) - n + 1)),
            }


def test_sizes(corpus):
    facts = describe(corpus)
    bytes_ = facts["train_bytes"] + facts["val_bytes"]
    tokens = facts["train_tokens"] + facts["val_tokens"] - 60  # without the end of each document
    assert facts["bytes_per_token"] == pytest.approx(bytes_ / tokens)
    assert facts["compression_percent"] == pytest.approx(100 - 100 * facts["compressed_vocab_size"] / facts["vocab_size"])
