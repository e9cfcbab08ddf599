"""Reading long documents with a model that was trained on short sequences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of documents, and where in them each of N tokens is read."""

    tokens: np.ndarray
    """int64 [W, T]; a document that ends early is padded with 0, which nothing before it can see."""
    window: np.ndarray
    """Window that each token is read in, int64 [N]."""
    place: np.ndarray
    """Its place in the window, int64 [N]."""


def reading_windows(documents: Sequence[np.ndarray], document: np.ndarray, position: np.ndarray, length: int) -> Windows:
    """Windows in which each wanted token has half a window of its document before it, or all there is.

    Windows start every T / 2 tokens, T the largest even number up to `length`; those without a wanted token are left out.

    Args:
        documents: token ids of each document.
        document: document of each wanted token, int64 [N].
        position: its place in that document, int64 [N].
        length: tokens per sequence in training, at least 2.
    """
    half = length // 2
    start = np.maximum(position // half - 1, 0) * half
    keys, window = np.unique(np.stack([document, start], axis=1), axis=0, return_inverse=True)
    tokens = np.zeros((len(keys), 2 * half), dtype=np.int64)
    for row, (number, first) in zip(tokens, keys, strict=True):
        part = documents[number][first : first + 2 * half]
        row[: len(part)] = part
    return Windows(tokens, window.ravel(), position - start)
