"""A number that was measured several times."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

FEWEST = 6
"""Rounds needed before the values' order gives a 95 % interval of their median."""


@dataclass(frozen=True)
class Measured:
    """Median over the rounds, with their range or the 95 % interval of the median."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Median and range of one value a round."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def interval(cls, values: Sequence[float]) -> Self:
        """Median and its 95 % interval, from the order of the values alone; their range where there are fewer than `FEWEST`.

        Each of n values lies below the median with probability 1/2, so at most k of them do with P(Binomial(n, 1/2) <= k).
        """
        n, ordered = len(values), sorted(values)
        if n < FEWEST:
            return cls.of(values)
        outside, below = 0, 0
        while (below + math.comb(n, outside)) / 2**n <= 0.025:
            below += math.comb(n, outside)
            outside += 1
        return cls(statistics.median(values), ordered[outside - 1], ordered[n - outside])
