"""Hashes of all windows of a sequence, in a few passes of NumPy: what n-grams of tokens and stretches of text are compared by.

A window's hash is sum(v[x_j] r^j) mod 2^64 over its elements x_j, a polynomial in an odd r (Karp and Rabin, IBM J. Res. Dev. 31, 1987)
with values v that are spread at random. As r has an inverse mod 2^64, all windows follow from one running sum. Equal windows have equal
hashes; two others have with a probability of about 2^-64. Integers only: every machine computes the same.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

BLOCK = 1 << 20
"""Elements that are hashed at once, so that memory stays bounded."""
_ROOT = 0x9E3779B97F4A7C15
_INVERSE = pow(_ROOT, -1, 1 << 64)


def spread(numbers: np.ndarray) -> np.ndarray:
    """Numbers mixed to 64 bits that look random, uint64 of the same shape (splitmix64, Steele et al., OOPSLA 2014)."""
    mixed = numbers.astype(np.uint64) + np.uint64(_ROOT)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def window_hashes(elements: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    """Hash of every window of `width` elements, uint64 [max(0, n - width + 1)].

    Args:
        elements: integers [n].
        values: what each integer stands for (`spread`), uint64 [integers].
        width: of the windows, far below `BLOCK`.
    """
    blocks = list(window_blocks(elements, values, width))
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.empty(0, dtype=np.uint64), *blocks])


def window_blocks(elements: np.ndarray, values: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """`window_hashes` in parts of at most `BLOCK`, for sequences that are too long to hash at once."""
    step = BLOCK - width + 1
    for start in range(0, len(elements) - width + 1, step):
        yield _hashes(np.asarray(elements[start : start + BLOCK]), values, width)


def _hashes(elements: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    sums = np.zeros(len(elements) + 1, dtype=np.uint64)
    np.cumsum(values[elements] * _powers(_ROOT, BLOCK)[: len(elements)], out=sums[1:])
    hashes: np.ndarray = sums[width:] - sums[:-width]
    hashes *= _powers(_INVERSE, BLOCK)[: len(hashes)]
    return hashes


@cache
def _powers(root: int, n: int) -> np.ndarray:
    """root^0, root^1, ..., root^(n - 1) mod 2^64: uint64 [n]."""
    factors = np.full(n, root, dtype=np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


class HashSet:
    """A fixed set of hashes, and which of them have been met: a bitmap keeps nearly all that are not in the set away from the search.

    Args:
        hashes: uint64 [n], repeated or not.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        ordered = np.sort(hashes)
        self._hashes = ordered[np.concatenate([ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]])]
        self._met = np.zeros(len(self._hashes), dtype=bool)
        bits = max(16, min(32, (32 * len(self._hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._bitmap = np.zeros(1 << (bits - 3), dtype=np.uint8)
        at = self._hashes >> self._shift
        np.bitwise_or.at(self._bitmap, at >> np.uint64(3), _BITS[at & np.uint64(7)])

    def meet(self, hashes: np.ndarray) -> None:
        """Note hashes, uint64 [m], of which few need be in the set."""
        at = hashes >> self._shift
        # In order, the search finds the numbers it compares with in the processor's cache.
        possible = np.sort(hashes[(self._bitmap[at >> np.uint64(3)] & _BITS[at & np.uint64(7)]) != 0])
        places = self._places(possible)
        self._met[places[self._hashes[places] == possible]] = True

    def met(self, hashes: np.ndarray) -> np.ndarray:
        """Which of some hashes of the set have been met, bool [m]."""
        return self._met[self._places(hashes)]

    def _places(self, hashes: np.ndarray) -> np.ndarray:
        return np.minimum(np.searchsorted(self._hashes, hashes), max(0, len(self._hashes) - 1))


_BITS = np.left_shift(1, np.arange(8)).astype(np.uint8)
