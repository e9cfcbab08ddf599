"""Documents between source and tokens: deduplicated, capped, and spooled to disk so that memory stays bounded."""

import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from engram.corpus.document import Document
from engram.errors import UserError

Progress = Callable[[str, int, int | None], None]
"""Called with a stage, how much of it is done, and how much there is in all (None: unknown)."""


class Spool:
    """The distinct documents of a source in order, in one file.

    Raises UserError when the source has no document, or when the first one alone exceeds the limit.
    """

    def __init__(self, file: Path, documents: Iterable[Document], max_bytes: int, progress: Progress) -> None:
        self.file = file
        self.digests: list[bytes] = []
        """SHA-256 of each document's UTF-8 text."""
        self.groups: list[str | None] = []
        """What each document belongs to."""
        self.duplicates = self.blank = 0
        ends = [0]
        seen: set[bytes] = set()
        with file.open("wb") as out:
            for text, group in documents:
                if not text.strip():
                    self.blank += 1
                    continue
                encoded = text.encode("utf-8")
                digest = hashlib.sha256(encoded).digest()
                if digest in seen:
                    self.duplicates += 1
                    continue
                if ends[-1] + len(encoded) > max_bytes:
                    if not self.digests:
                        raise UserError(f"the first document has {len(encoded)} bytes, more than the {max_bytes} that the corpus may have")
                    break
                seen.add(digest)
                out.write(encoded)
                self.digests.append(digest)
                self.groups.append(group)
                ends.append(ends[-1] + len(encoded))
                if len(self.digests) % 256 == 0:
                    progress("reading text", ends[-1], max_bytes)
        progress("reading text", ends[-1], ends[-1])
        if not self.digests:
            raise UserError("the corpus is empty: its source has no document with text")
        self.ends = np.array(ends, dtype=np.int64)

    @property
    def read(self) -> int:
        """Documents that were read: those that are kept, duplicates and blank ones."""
        return len(self.digests) + self.duplicates + self.blank

    def size(self, number: int) -> int:
        """UTF-8 bytes of a document."""
        return int(self.ends[number + 1] - self.ends[number])

    def texts(self, numbers: Sequence[int]) -> Iterator[str]:
        """Texts of the documents, in the order of `numbers`."""
        return (text.decode("utf-8") for text in self.encoded(numbers))

    def encoded(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """UTF-8 texts of the documents, in the order of `numbers`."""
        with self.file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            for number in numbers:
                yield text[self.ends[number] : self.ends[number + 1]]

    def batches(self, numbers: Sequence[int], most_bytes: int, most_documents: int) -> Iterator[list[int]]:
        """The numbers in batches that bound memory: a batch is full with its document that reaches one of the limits."""
        batch: list[int] = []
        size = 0
        for number in numbers:
            batch.append(number)
            size += self.size(number)
            if len(batch) == most_documents or size >= most_bytes:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
