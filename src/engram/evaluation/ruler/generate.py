"""Samples of any RULER task at any length, byte for byte the same as those of NVIDIA's generator."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from engram.errors import UserError
from engram.evaluation.ruler.common_words import CommonWordsTask
from engram.evaluation.ruler.documents import DocumentsTask
from engram.evaluation.ruler.fit import TRIAL, DoesNotFitError
from engram.evaluation.ruler.frequent_words import FrequentWordsTask
from engram.evaluation.ruler.needles import NeedleTask
from engram.evaluation.ruler.sample import Encode, Sample, as_encode
from engram.evaluation.ruler.sources import load_essay, load_more_words, load_questions
from engram.evaluation.ruler.tasks import NEEDLES, QA_SETS, kind_of
from engram.evaluation.ruler.tracking import TrackingTask

SEED = 42
"""RULER's `--random_seed`."""
LONGEST_TRIED = 1 << 17
"""Length at which the search for one that works gives up."""


class Generator(Protocol):
    """Makes the samples of one task."""

    def __call__(self, length: int, n: int, patience: int = ...) -> list[Sample]:
        """The first `n` samples of at most `length` tokens, with at most `patience` draws at the smallest size for each."""


def samples(
    task: str,
    length: int,
    tokenizer: Tokenizer | Encode,
    n: int,
    seed: int = SEED,
    *,
    haystack: Sequence[Path] | None = None,
    qa: Path | None = None,
    words: Path | None = None,
) -> list[Sample]:
    """The first `n` samples of `task` whose prompt and answer take at most `length` tokens.

    The same arguments give the same samples; another `n` gives more or fewer of the same, in every task.

    Args:
        task: one of `TASKS`.
        length: tokens of prompt and answer.
        tokenizer: a `tokenizers.Tokenizer` or a function from text to tokens; sizes are counted without special tokens, as in RULER.
        n: number of samples.
        seed: of the samples.
        haystack: files for the essay tasks; None: downloaded.
        qa: file for the question answering task; None: downloaded.
        words: file of the longer word list that `cwe` needs above about 100 000 tokens; None: downloaded.

    Raises UserError when something is missing, or when the length is too short for the task, where RULER's generator would loop.
    """
    if n < 1:
        raise UserError(f"n is {n}; at least one sample is needed")
    generator = _generator(task, as_encode(tokenizer), seed, haystack, qa, words)
    try:
        return generator(length, n)
    except DoesNotFitError as error:
        works = _smallest_length(generator, length, n, error)
        advice = f"the smallest length found to work is {works}" if works else f"no length up to {LONGEST_TRIED} works"
        raise UserError(f"{task} does not fit in {length} tokens; with this tokenizer and seed {advice}") from error


def _generator(task: str, encode: Encode, seed: int, haystack: Sequence[Path] | None, qa: Path | None, words: Path | None) -> Generator:
    kind = kind_of(task)
    if kind == "niah":
        needles = NEEDLES[task]
        return NeedleTask(needles, encode, seed, load_essay(haystack).sentences if needles.haystack == "essay" else None)
    if kind == "vt":
        return TrackingTask(encode, seed)
    if kind == "cwe":
        return CommonWordsTask(encode, seed, partial(load_more_words, words))
    if kind == "fwe":
        return FrequentWordsTask(encode, seed)
    return DocumentsTask(task, load_questions(QA_SETS[task], qa), encode, seed)


def _smallest_length(generator: Generator, length: int, n: int, error: DoesNotFitError) -> int | None:
    """The shortest length found above `length` that holds `n` samples without much luck; None if none was found.

    A shorter one may work too: near the limit, prompts of the smallest size vary by a few tokens from draw to draw, and the sizes of `qa`
    go down in tens, so that 15 documents can go down to 5, but 20 only to 10.
    """

    def fits(candidate: int) -> bool:
        try:
            generator(candidate, n, TRIAL)
        except DoesNotFitError:
            return False
        return True

    too_short = max(length, min(error.totals, default=0) - 1)
    works = max(too_short + 1, max(error.totals, default=0))
    while not fits(works):
        too_short, works = works, works + max(1, works // 16)
        if works > LONGEST_TRIED:
            return None
    while works - too_short > 1:
        middle = (too_short + works) // 2
        if fits(middle):
            works = middle
        else:
            too_short = middle
    return works
