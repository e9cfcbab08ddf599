"""Words for needles and word lists: those of the package `wonderwords` 3.0.1, as in RULER.

Version 2.2.0 has four more nouns, enough to change nearly every word drawn.
"""

import random
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from importlib import metadata, resources
from itertools import accumulate
from typing import overload

from engram.errors import UserError

VERSION = "3.0.1"
NOUNS, ADJECTIVES, VERBS = "nounlist.txt", "adjectivelist.txt", "verblist.txt"


@cache
def word_list(name: str) -> tuple[str, ...]:
    """One of the package's lists, in its own order."""
    try:
        version = metadata.version("wonderwords")
    except metadata.PackageNotFoundError as error:
        raise UserError("RULER's words are those of the package wonderwords, which is missing; pip install 'engramctl[eval]'") from error
    if version != VERSION:
        raise UserError(f"RULER's words are those of wonderwords {VERSION}, here is {version}; pip install wonderwords=={VERSION}")
    text = (resources.files("wonderwords") / "assets" / name).read_text(encoding="utf-8")
    return tuple(line.rstrip() for line in text.splitlines())


@cache
def shuffled_words(seed: int) -> tuple[str, ...]:
    """All nouns, adjectives and verbs, each once, shuffled by `seed`."""
    words = sorted({*word_list(NOUNS), *word_list(ADJECTIVES), *word_list(VERBS)})
    random.Random(seed).shuffle(words)
    return tuple(words)


@cache
def adjective_nouns() -> "SortedPairs":
    """Every `adjective-noun`, sorted."""
    return SortedPairs(word_list(ADJECTIVES), word_list(NOUNS))


class SortedPairs(Sequence[str]):
    """The sorted set of all strings `first-second`, without creating all six million of them.

    RULER creates and sorts them all, which takes seconds and hundreds of megabytes, and then draws a handful. The pairs of one first word
    are adjacent, except where those of another fall between them ("ill-" and "ill-fated-"). Only the pairs of such a group are created, and
    only when one of them is asked for.
    """

    def __init__(self, firsts: Sequence[str], seconds: Sequence[str]) -> None:
        self._seconds = sorted(set(seconds))
        self._groups: list[list[str]] = []
        last = ""
        for head in sorted(f"{first}-" for first in set(firsts)):
            # First words are in the order of their smallest pair. One that starts before the end of a group belongs to it.
            if self._groups and head + self._seconds[0] <= last:
                self._groups[-1].append(head)
            else:
                self._groups.append([head])
                last = ""
            last = max(last, head + self._seconds[-1])
        self._made: dict[int, list[str]] = {}
        self._ends = list(accumulate(self._size(number) for number in range(len(self._groups))))

    def _size(self, number: int) -> int:
        return len(self._seconds) if len(self._groups[number]) == 1 else len(self._pairs(number))

    def _pairs(self, number: int) -> list[str]:
        if number not in self._made:
            self._made[number] = sorted({head + second for head in self._groups[number] for second in self._seconds})
        return self._made[number]

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index if index >= 0 else len(self) + index
        if not 0 <= place < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, place)
        place -= self._ends[number - 1] if number else 0
        heads = self._groups[number]
        return heads[0] + self._seconds[place] if len(heads) == 1 else self._pairs(number)[place]
