"""What validation documents have in common with training documents, counted exactly: MinHash promises nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engram.corpus.rolling import HashSet
from engram.corpus.spool import Progress, Spool
from engram.corpus.windows import BATCH_BYTES, BATCH_DOCUMENTS, Windows, text_windows

WIDTH = 64
"""Bytes, white space not counted, of a stretch that two documents have in common: about 32 tokens of code, and less than those of prose."""
BEGINNING_BYTES = 3000
"""Bytes, white space not counted, of the beginning of a document: about what validation takes of it."""
_MOST_WINDOWS = 4_000_000
"""Validation windows that are looked for; of more, every second, fourth, ... is taken, by its hash."""


@dataclass(frozen=True)
class SharedText:
    """For each validation document, in order."""

    lines: np.ndarray
    """Largest share of its lines that one training document has, float64 [n]; of its different lines or of all, whichever is larger."""
    stretches: np.ndarray
    """Share of its windows of `WIDTH` bytes that stand in training, float64 [n]; of its beginning or of all, whichever is larger."""


def shared_text(spool: Spool, train: Sequence[int], val: Sequence[int], report: Progress) -> SharedText:
    """Compare validation documents with training documents, given by their numbers in the spool."""
    every = 1
    while sum(map(spool.size, val)) > every * _MOST_WINDOWS:
        every *= 2
    lines, stretches = _Lines(spool, val), _Stretches(spool, val, every)
    done, total = 0, sum(map(spool.size, train))
    for batch in spool.batches(train, BATCH_BYTES, BATCH_DOCUMENTS):
        texts = list(spool.encoded(batch))
        for text in texts:
            lines.meet(text)
        stretches.meet(texts)
        done += sum(map(len, texts))
        report("comparing the two sides", done, total)
    return SharedText(lines.largest, stretches.shares())


class _Lines:
    """The lines of the validation documents, and for each document the largest share that one training document had of them."""

    def __init__(self, spool: Spool, val: Sequence[int]) -> None:
        self._numbers: dict[bytes, int] = {}
        in_lines: list[int] = []
        in_documents: list[int] = []
        counts: list[int] = []
        for document, text in enumerate(spool.encoded(val)):
            for line, count in Counter(_stripped(text)).items():
                in_lines.append(self._numbers.setdefault(line, len(self._numbers)))
                in_documents.append(document)
                counts.append(count)
        # Postings: the documents of each line, those of a line beside one another.
        order = np.argsort(in_lines, kind="stable")
        self._documents = np.array(in_documents, dtype=np.int64)[order]
        self._counts = np.stack([np.ones(len(order)), np.array(counts, dtype=np.float64)[order]])  # [different lines or all, postings]
        self._lengths = np.bincount(in_lines, minlength=len(self._numbers))
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._sizes = np.stack([np.bincount(self._documents, weights=c, minlength=len(val)) for c in self._counts])
        self._shared = np.zeros_like(self._sizes)
        self._known = frozenset(self._numbers)
        self.largest = np.zeros(len(val))

    def meet(self, text: bytes) -> None:
        """Take a training document into account."""
        common = self._known & set(_stripped(text))
        if not common:
            return
        lines = np.fromiter((self._numbers[line] for line in common), dtype=np.int64, count=len(common))
        lengths = self._lengths[lines]
        postings = np.repeat(self._starts[lines] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        documents = self._documents[postings]
        for shared, counts, sizes in zip(self._shared, self._counts, self._sizes, strict=True):
            np.add.at(shared, documents, counts[postings])
            self.largest[documents] = np.maximum(self.largest[documents], shared[documents] / sizes[documents])
            shared[documents] = 0


class _Stretches:
    """The windows of the validation documents, and which of them stand in a training document."""

    def __init__(self, spool: Spool, val: Sequence[int], every: int) -> None:
        self._n, self._every = len(val), every
        parts, before = [], 0
        for batch in spool.batches(val, BATCH_BYTES, BATCH_DOCUMENTS):
            windows = text_windows(list(spool.encoded(batch)), WIDTH, every)
            parts.append(windows._replace(document=windows.document + before))
            before += len(batch)
        self._windows = Windows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        self._set = HashSet(self._windows.hash)

    def meet(self, texts: Sequence[bytes]) -> None:
        """Take training documents into account."""
        self._set.meet(text_windows(texts, WIDTH, self._every).hash)

    def shares(self) -> np.ndarray:
        """By validation document, float64 [n]."""
        met = self._set.met(self._windows.hash)
        beginning = self._windows.place <= BEGINNING_BYTES - WIDTH
        return np.maximum(self._share(met, np.ones_like(beginning)), self._share(met, beginning))

    def _share(self, met: np.ndarray, counted: np.ndarray) -> np.ndarray:
        of = np.bincount(self._windows.document[counted], minlength=self._n)
        shared = np.bincount(self._windows.document[counted & met], minlength=self._n)
        share: np.ndarray = shared / np.maximum(1, of)
        return share


def _stripped(text: bytes) -> list[bytes]:
    """The lines of a text that are not blank, without the white space around them."""
    return [stripped for line in text.splitlines() if (stripped := line.strip())]
