"""Finds how large a context fits: the search and the retries that all of RULER's generators but one share.

Both draw from the generator's single stream of random numbers, so the number and the order of the draws affect the result: no draw may be
left out, not even one whose text is thrown away.
"""

from collections.abc import Callable, Sequence
from statistics import fmean, pstdev

from engram.errors import UserError

Count = Callable[[str], int]
"""Tokens of a text."""
Draw = Callable[[int], tuple[str, list[str]]]
"""Draws a prompt whose context has the given size, and its reference answers."""

PATIENCE = 1000
"""Draws at the smallest size before giving up on a length; RULER's own loop goes on for ever."""
TRIAL = 50
"""Draws after which to give up at once if the length is out of reach."""
OUT_OF_REACH = 6.0
"""A length this many standard deviations below the mean length of prompts is out of reach."""


class DoesNotFitError(Exception):
    """Not even the smallest context fits the length; RULER's own generator would never end."""

    def __init__(self, totals: Sequence[int]) -> None:
        super().__init__(*totals)
        self.totals = tuple(totals)
        """Lengths of the smallest prompts seen, answers included; empty if no prompt could be made."""


def search_bound(length: int, sample_tokens: int, step: int) -> int:
    """Upper end of the search: three times the size that a prompt of size `step` suggests."""
    return int((length / (sample_tokens / step)) * 3)


def largest_size(draw: Draw, count: Count, budget: int, step: int, bound: int) -> int:
    """Largest size from `step` to `bound` whose prompt has at most `budget` tokens, by bisection; `step` if none has.

    Each size is drawn once, so a lucky draw can accept a size that mostly doesn't fit; this is what the retries are for.
    """
    best = step
    low, high = step, max(bound, step * 2)
    while low <= high:
        middle = (low + high) // 2
        text, _ = draw(middle)
        if count(text) <= budget:
            best = middle
            low = middle + 1
        else:
            high = middle - 1
    return best


def draw_fitting(
    draw: Draw, count: Count, length: int, reserved: int, size: int, step: int, patience: int = PATIENCE
) -> tuple[str, list[str], int]:
    """Prompt, reference answers and length (`reserved` tokens of the answer included) of the first draw that fits.

    After a draw that doesn't fit, the size goes down by `step`; at `step` or less, the same size is drawn again. Raises DoesNotFitError
    when that would never end: after `patience` draws at the smallest size, or earlier if the length is out of reach.
    """
    totals: list[int] = []
    refused = 0
    while True:
        smallest = size <= step
        try:
            text, answers = draw(size)
        except UserError:
            raise
        except ValueError:
            # More places were asked for than the context has; RULER treats this as a prompt that is too long.
            refused += smallest
        else:
            total = count(text) + reserved
            if total <= length:
                return text, answers, total
            if smallest:
                totals.append(total)
        if not smallest:
            size -= step
        elif len(totals) + refused >= patience or _out_of_reach(totals, length):
            raise DoesNotFitError(totals)


def _out_of_reach(totals: list[int], length: int) -> bool:
    return len(totals) == TRIAL and length < fmean(totals) - OUT_OF_REACH * pstdev(totals)
