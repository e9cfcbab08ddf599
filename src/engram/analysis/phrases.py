"""The phrases at which a gate is most open."""

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

MIN_OCCURRENCES = 5
"""The mean over fewer occurrences of a phrase says little."""
TOP_PHRASES = 50


@dataclass(frozen=True)
class Phrase:
    """An N-gram of the text."""

    text: str
    gate: float
    """Mean over its occurrences and over branches, at its last token."""
    occurrences: int


def top_phrases(tokenizer: Tokenizer, inputs: np.ndarray, gates: np.ndarray, order: int) -> list[Phrase]:
    """The `TOP_PHRASES` N-grams of `order` tokens inside windows int64 [n, T] with the highest mean gate, from gates [n, T] at their ends.

    Only N-grams that occur at least `MIN_OCCURRENCES` times are considered.
    """
    ngrams = np.lib.stride_tricks.sliding_window_view(inputs, order, axis=1).reshape(-1, order)  # [n (T - N + 1), N]
    distinct, place, counts = np.unique(ngrams, axis=0, return_inverse=True, return_counts=True)
    means = np.bincount(place.ravel(), weights=gates[:, order - 1 :].ravel()) / counts
    often = np.flatnonzero(counts >= MIN_OCCURRENCES)
    chosen = often[np.argsort(-means[often], kind="stable")[:TOP_PHRASES]]
    texts = tokenizer.decode_batch(distinct[chosen].tolist(), skip_special_tokens=False)
    return [Phrase(text, float(means[i]), int(counts[i])) for text, i in zip(texts, chosen, strict=True)]
