import random
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import UserError
from engram.evaluation.ruler import words
from engram.evaluation.ruler.words import NOUNS, SortedPairs, adjective_nouns, word_list

WORDS = st.lists(st.text("ab-' ", min_size=1, max_size=4), min_size=1, max_size=12)


def test_pairs_of_interleaving_words():
    # "ill-" + "fated-one" is made twice; "ill-fated-" falls among the pairs of "ill-".
    pairs = SortedPairs(["ill", "well", "ill-fated", "ill"], ["zoo", "one", "fated-one", "apple"])
    assert list(pairs) == sorted({*pairs})
    assert len(pairs) == 3 * 4 - 1
    assert pairs[-1] == "well-zoo"
    assert pairs[1:3] == ["ill-fated-apple", "ill-fated-fated-one"]
    with pytest.raises(IndexError):
        pairs[len(pairs)]


@given(WORDS, WORDS)
def test_pairs_are_the_sorted_set(firsts: list[str], seconds: list[str]):
    assert list(SortedPairs(firsts, seconds)) == sorted({f"{first}-{second}" for first in firsts for second in seconds})


def test_pairs_of_the_real_lists():
    # Six million made and sorted give the same; here only their number and an order that must not be broken anywhere near.
    pairs = adjective_nouns()
    assert len(pairs) == 6171620
    places = random.Random(1).sample(range(len(pairs) - 1), 1000)
    assert all(pairs[place] < pairs[place + 1] for place in places)


def test_another_version_of_the_lists_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.2.0")
    word_list.cache_clear()
    with pytest.raises(UserError, match=r"wonderwords 3\.0\.1, here is 2\.2\.0"):
        word_list(NOUNS)


def test_missing_package(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(words.metadata, "version", missing)
    word_list.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'engramctl\[eval\]'"):
        word_list(NOUNS)
