import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from engram.analysis.groups import (
    FREQUENCIES,
    PLACES,
    by_longest_ngram,
    by_ngram_frequency,
    by_place_in_word,
    by_seen_ngram,
    by_token_frequency,
    token_texts,
)
from engram.analysis.ngram_counts import count_ngrams
from engram.corpus.dataset import validation_windows


@pytest.fixture(scope="module")
def counts(restore, code_corpus):
    return count_ngrams(restore(code_corpus, "engram-v4.1").model, code_corpus)


@pytest.fixture(scope="module")
def inputs(code_corpus):
    return validation_windows(code_corpus, 16, 1024)[0][:, :-1]


def test_frequencies(counts, inputs):
    grouping = by_token_frequency(counts, inputs)
    for token, group in zip(inputs.ravel().tolist(), grouping.index.ravel().tolist(), strict=True):
        n = counts.token_counts[token]
        low, high = [(0, 0), (1, 1), (2, 9), (10, 99), (100, 999), (1000, 9999), (10_000, 10**9)][group]
        assert low <= n <= high
    assert len(FREQUENCIES) == 7


def test_longest_and_seen_agree(counts, inputs):
    longest, seen = by_longest_ngram(counts, inputs), by_seen_ngram(counts, inputs)
    assert longest.labels == ("1", "2", "3", "4")
    assert (longest.index[:, :3] == -1).all()
    assert (longest.index[:, 3:] >= 0).all()
    for order, grouping in zip((2, 3, 4), seen, strict=True):
        assert grouping.name == f"{order}-gram seen"
        assert (grouping.index[:, : order - 1] == -1).all()
        assert np.array_equal(grouping.index[:, 3:] == 1, longest.index[:, 3:] >= order - 1)
    assert {1, 2, 3} <= set(longest.index[:, 3:].ravel().tolist())
    for grouping, frequency in zip(seen, by_ngram_frequency(counts, inputs), strict=True):
        assert np.array_equal(grouping.index == 1, frequency.index > 0)
        assert np.array_equal(grouping.index == -1, frequency.index == -1)


def test_places_in_words():
    pieces = ["(", "val", "_", "lo", "ss", " ", " x", "x1", ".", "é", "a("]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="("))
    text = ["(", "val", "_", "lo", "ss", " ", " x", ".", "é", " x", "x1", "a(", "x1", " "]
    grouping = by_place_in_word(tokenizer, np.array([[pieces.index(piece) for piece in text]]))
    names = [PLACES[i] if i >= 0 else "-" for i in grouping.index[0]]
    expected = "- first middle middle last outside whole outside whole first middle last whole"
    assert names == expected.split()


def test_tokenizers_that_mark_words():
    tokenizer = Tokenizer(models.WordLevel({"ab": 0, "▁cd": 1}, unk_token="ab"))
    tokenizer.decoder = decoders.Metaspace()
    assert token_texts(tokenizer, [0, 1]) == ["ab", " cd"]
    grouping = by_place_in_word(tokenizer, np.array([[0, 0, 1, 0, 0]]))
    assert [PLACES[place] for place in grouping.index[0, 1:]] == ["last", "first", "middle"]
