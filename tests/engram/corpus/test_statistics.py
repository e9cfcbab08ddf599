from collections import Counter
from dataclasses import replace

import pytest

from engram.corpus import statistics
from engram.corpus.statistics import describe, overlap, text_loss


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


def test_what_a_tokenizer_lost_in_words(corpus):
    assert text_loss(corpus) is None
    documents = corpus.meta["train_documents"] + corpus.meta["val_documents"]
    tokens = corpus.meta["train_tokens"] + corpus.meta["val_tokens"] - documents
    lossy = replace(corpus, meta={**corpus.meta, "unknown_token": "<unk>", "unknown_tokens": tokens // 2, "changed_documents": 7})
    said = f"50 % of the tokens are <unk>, 7 of {documents} documents do not decode back to their text; bits per byte are not comparable"
    assert said in text_loss(lossy)
    before = replace(
        corpus, meta={name: value for name, value in corpus.meta.items() if name not in ("unknown_tokens", "changed_documents")}
    )
    assert text_loss(before) is None


def test_overlap_in_words(corpus):
    assert overlap(corpus) is None
    heavy = replace(corpus, meta={**corpus.meta, "val_overlap_32": 0.123, "val_line_share": 0.2})
    assert "12.3 % of its tokens are in a 32-gram of training, and a document has 20 % of its lines in common" in overlap(heavy)
    assert "31 % of its lines" in overlap(replace(corpus, meta={**corpus.meta, "val_line_share": 0.31}))
    before = replace(corpus, meta={name: value for name, value in corpus.meta.items() if name != "val_overlap_32"})
    assert "is not known: an earlier version prepared this corpus" in overlap(before)
