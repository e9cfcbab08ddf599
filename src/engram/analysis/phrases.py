"""The phrases that open a gate most."""

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

MIN_OCCURRENCES = 5
"""A phrase that occurs less often has a mean that says little."""
TOP_PHRASES = 50


@dataclass(frozen=True)
class Phrase:
    """An N-gram of the text."""

    text: str
    gate: float
    """Mean over its occurrences and over branches, at its last token."""
    occurrences: int


def top_phrases(
    tokenizer: Tokenizer, inputs: np.ndarray, gates: np.ndarray, order: int, top: int = TOP_PHRASES, min_occurrences: int = MIN_OCCURRENCES
) -> list[Phrase]:
    """The N-grams of `order` tokens inside windows int64 [n, T] with the highest mean gate, from gates [n, T] at their last token."""
    ngrams = np.lib.stride_tricks.sliding_window_view(inputs, order, axis=1).reshape(-1, order)  # [n (T - N + 1), N]
    distinct, place, counts = np.unique(ngrams, axis=0, return_inverse=True, return_counts=True)
    means = np.bincount(place.ravel(), weights=gates[:, order - 1 :].ravel()) / counts
    often = np.flatnonzero(counts >= min_occurrences)
    chosen = often[np.argsort(-means[often], kind="stable")[:top]]
    texts = tokenizer.decode_batch(distinct[chosen].tolist(), skip_special_tokens=False)
    return [Phrase(text, float(means[i]), int(counts[i])) for text, i in zip(texts, chosen, strict=True)]
