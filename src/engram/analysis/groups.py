"""Groups of tokens: by how often they occur, by the N-grams that the memory knows, by their place in a word."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from engram.analysis.ngram_counts import NgramCounts
from engram.tokenizer.compression import REPLACEMENT

_EDGES = np.array([1, 2, 10, 100, 1000, 10_000])
FREQUENCIES = ("0", "1", "2-9", "10-99", "100-999", "1000-9999", "10000 or more")
"""Occurrences in the training split."""
PLACES = ("outside", "whole", "first", "middle", "last")
"""Outside words, a word of one token, and the first, a middle or the last token of a longer word."""


@dataclass(frozen=True, eq=False)
class Grouping:
    """One way to put tokens into groups."""

    name: str
    labels: tuple[str, ...]
    index: np.ndarray
    """Number of each token's group, or -1 for none, int64 [n, T]."""


def everything(shape: tuple[int, ...]) -> Grouping:
    """All tokens in one group."""
    return Grouping("all", ("all",), np.zeros(shape, dtype=np.int64))


def by_token_frequency(counts: NgramCounts, tokens: np.ndarray) -> Grouping:
    """By how often each token int64 [n, T] occurs in the training split."""
    return Grouping("token frequency", FREQUENCIES, _frequency(counts.token_counts[tokens]))


def by_ngram_frequency(counts: NgramCounts, inputs: np.ndarray) -> list[Grouping]:
    """For each order 2..N, by how often the N-gram that ends at each token int64 [n, T] occurs there."""
    return [Grouping(f"{order}-gram frequency", FREQUENCIES, _frequency(n)) for order, n in counts.of_inputs(inputs).items()]


def by_longest_ngram(counts: NgramCounts, inputs: np.ndarray) -> Grouping:
    """By the longest N-gram that ends at each token and occurs there; 1: not even the pair does. A window's first N - 1 are in no group."""
    of_order = list(counts.of_inputs(inputs).values())
    longest = 1 + np.sum([n > 0 for n in of_order], axis=0)  # the end of a known N-gram is known too
    longest[of_order[-1] < 0] = 0
    return Grouping("longest N-gram seen", tuple(map(str, range(1, len(of_order) + 2))), longest - 1)


def by_seen_ngram(counts: NgramCounts, inputs: np.ndarray) -> list[Grouping]:
    """For each order 2..N, by whether the N-gram that ends at each token occurs there."""
    return [
        Grouping(f"{order}-gram seen", ("unseen", "seen"), np.where(n < 0, -1, np.minimum(n, 1)))
        for order, n in counts.of_inputs(inputs).items()
    ]


def by_place_in_word(tokenizer: Tokenizer, windows: np.ndarray) -> Grouping:
    """By the place of the first T tokens of windows int64 [n, T + 1] in a word or identifier: a run of letters, digits and underscores.

    Whether a token is the last depends on the next one, which the model does not see. What precedes a window's first token is not known,
    so that token is in no group.
    """
    begins, ends, word = (flags[windows] for flags in _word_flags(tokenizer, int(windows.max()) + 1))
    joined = ends[:, :-1] & begins[:, 1:]  # [n, T]: a token and the next
    before = np.concatenate([np.zeros_like(joined[:, :1]), joined[:, :-1]], axis=1)
    place = np.where(before, np.where(joined, 3, 4), np.where(joined, 2, 1))
    place = np.where(word[:, :-1], place, 0)
    place[:, 0] = -1
    return Grouping("place in word", PLACES, place)


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token on its own, with the space before it where the tokenizer marks the beginnings of words."""
    texts = tokenizer.decode_batch([[i] for i in ids], skip_special_tokens=False)
    raw = [tokenizer.id_to_token(i) or "" for i in ids]
    return [f" {text}" if token.startswith("▁") and not text.startswith(" ") else text for text, token in zip(texts, raw, strict=True)]


def _word_flags(tokenizer: Tokenizer, n_tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each token begins with, ends with, and contains a character of a word: bool [V] each."""
    texts = token_texts(tokenizer, range(n_tokens))
    begins, ends = (np.array([_in_word(text[edge : edge + 1 or None]) for text in texts]) for edge in (0, -1))
    return begins, ends, np.array([any(map(_in_word, text)) for text in texts])


def _in_word(character: str) -> bool:
    # Part of a character is usually part of a letter.
    return character.isalnum() or character in ("_", REPLACEMENT)


def _frequency(counts: np.ndarray) -> np.ndarray:
    """Occurrences int64 [...] -> numbers of groups; -1 stays -1."""
    index: np.ndarray = np.searchsorted(_EDGES, counts, side="right")
    return np.where(counts < 0, -1, index)
