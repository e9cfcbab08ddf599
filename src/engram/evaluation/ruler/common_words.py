"""Common words extraction; source: NVIDIA/RULER `scripts/data/synthetic/common_words_extraction.py` at c3f5e3b4."""

import random
from collections.abc import Callable, Sequence

from engram.errors import UserError
from engram.evaluation.ruler.fit import PATIENCE, draw_fitting, largest_size
from engram.evaluation.ruler.needles import SHORT
from engram.evaluation.ruler.sample import Encode, Sample
from engram.evaluation.ruler.tasks import TEMPLATES
from engram.evaluation.ruler.words import shuffled_words

COMMON = 10
STEP = 10
SAMPLE_SIZE = 4096
"""Size of the context from which the tokens per word are estimated."""


class CommonWordsTask:
    """Generates samples of `cwe`: ten words are repeated more often than the others; one solved example comes first."""

    def __init__(self, encode: Encode, seed: int, more_words: Callable[[], Sequence[str]]) -> None:
        self._encode = encode
        self._seed = seed
        self._words = shuffled_words(seed)
        self._more_words = more_words
        """The longer list, for contexts with more words than the first one has."""
        self._random = random.Random(seed)

    def __call__(self, length: int, n: int, patience: int = PATIENCE) -> list[Sample]:
        """The first `n` samples of at most `length` tokens; the same at every call."""
        self._random = random.Random(self._seed)

        def draw(size: int) -> tuple[str, list[str]]:
            return self._draw(size, short=length < SHORT)

        spare = TEMPLATES["cwe"].tokens_to_generate
        bound = int(length // (self._count(draw(SAMPLE_SIZE)[0]) / SAMPLE_SIZE)) * 2
        size = largest_size(draw, self._count, length - spare, STEP, bound)
        samples = []
        for index in range(n):
            text, answers, total = draw_fitting(draw, self._count, length, spare, size, STEP, patience)
            question, prefix = TEMPLATES["cwe"].cut(text)
            samples.append(Sample(index, question, tuple(answers), total, prefix))
        return samples

    def _count(self, text: str) -> int:
        return len(self._encode(text))

    def _draw(self, size: int, short: bool) -> tuple[str, list[str]]:
        solved, solution = self._list(20, 3, 1) if short else self._list(40, 10, 3)
        context, answers = self._list(size, 6, 1) if short else self._list(size, 30, 3)
        question = TEMPLATES["cwe"].text
        return f"{question.format(context=solved)} {_numbered(solution)}\n{question.format(context=context)}", answers

    def _list(self, size: int, repeats_of_common: int, repeats_of_others: int) -> tuple[str, list[str]]:
        words = self._words if size <= len(self._words) else self._more_words()
        if size > len(words):
            raise UserError(f"cwe needs a list of {size} words to find how many fit; the longer list has {len(words)}")
        drawn = self._random.sample(words, size)
        common, others = drawn[:COMMON], drawn[COMMON:]
        lines = common * repeats_of_common + others * repeats_of_others
        random.Random(self._seed).shuffle(lines)
        return _numbered(lines), common


def _numbered(words: list[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))
