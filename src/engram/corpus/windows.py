"""Stretches of text that several documents have in common, found by the hashes of windows of characters."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engram.corpus.rolling import spread, window_blocks

BATCH_BYTES = 1_000_000
"""Text to hash together: fewer calls for short documents."""
BATCH_DOCUMENTS = 4096
_SPACE = b" \t\n\r\x0b\x0c"
_BYTE_VALUES = spread(np.arange(256))


class Windows(NamedTuple):
    """Windows of some documents, in order."""

    document: np.ndarray
    """Which of the documents, int64 [n]."""
    place: np.ndarray
    """Bytes of that document, white space not counted, that stand before the window, int64 [n]."""
    hash: np.ndarray
    """uint64 [n]."""


def text_windows(texts: Sequence[bytes], width: int, every: int) -> Windows:
    """Windows of `width` bytes within UTF-8 texts; white space is left out first, so indentation and line breaks don't matter.

    Of `every` windows (a power of two) one is taken on average. Its hash decides, so that equal windows are taken or left together.
    """
    dense = [text.translate(None, _SPACE) for text in texts]
    ends = np.cumsum([len(text) for text in dense], dtype=np.int64)
    joined = np.frombuffer(b"".join(dense), dtype=np.uint8)
    taken, hashes, start = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.uint64)], 0
    for block in window_blocks(joined, _BYTE_VALUES, width):
        places = np.flatnonzero(block & np.uint64(every - 1) == 0)
        taken.append(places + start)
        hashes.append(block[places])
        start += len(block)
    at = np.concatenate(taken)
    document = np.searchsorted(ends, at, side="right")
    within = at + width <= ends[document]
    starts = np.concatenate([[0], ends[:-1]])
    return Windows(document[within], (at - starts[document])[within], np.concatenate(hashes)[within])
