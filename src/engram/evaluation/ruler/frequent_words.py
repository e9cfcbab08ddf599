"""Frequent words extraction; source: NVIDIA/RULER `scripts/data/synthetic/freq_words_extraction.py` at c3f5e3b4."""

import random
import string

import numpy as np
from scipy.special import zeta

from engram.evaluation.ruler.fit import PATIENCE, DoesNotFitError
from engram.evaluation.ruler.sample import Encode, Sample
from engram.evaluation.ruler.tasks import TEMPLATES

ALPHA = 2.0
"""Exponent of the words' zeta distribution."""
LETTERS = 6
MIN_VOCABULARY = 4
"""The dots and the three words asked for."""
NOISE_WORD = "..."


class FrequentWordsTask:
    """Generates samples of `fwe`: made-up words, of which the three most frequent are asked for."""

    def __init__(self, encode: Encode, seed: int) -> None:
        self._encode = encode
        self._seed = seed
        self._random = random.Random(seed)

    def __call__(self, length: int, n: int, patience: int = PATIENCE) -> list[Sample]:
        """The first `n` samples of at most `length` tokens; the same at every call. No draw is repeated, so `patience` has no use here."""
        self._random = random.Random(self._seed)
        spare = TEMPLATES["fwe"].tokens_to_generate
        budget = length - spare
        step = budget // 32
        if budget // 50 < MIN_VOCABULARY:
            raise DoesNotFitError([MIN_VOCABULARY * 50 + spare])
        words = self._first_size(budget, step)
        samples = []
        for index in range(n):
            # RULER searches again if the first search ended with no words at all.
            text, answers = self._fitting(budget, words, step) if words > 0 else self._searched(budget, step)
            question, prefix = TEMPLATES["fwe"].cut(text)
            samples.append(Sample(index, question, tuple(answers), self._count(text) + spare, prefix))
        return samples

    def _count(self, text: str) -> int:
        return len(self._encode(text))

    def _first_size(self, budget: int, step: int) -> int:
        return self._grown(self._vocabulary(budget), budget, step)

    def _searched(self, budget: int, step: int) -> tuple[str, list[str]]:
        vocabulary = self._vocabulary(budget)
        return self._text(vocabulary, self._grown(vocabulary, budget, step)), vocabulary[1:4]

    def _grown(self, vocabulary: list[str], budget: int, step: int) -> int:
        words = budget // LETTERS
        while self._count(self._text(vocabulary, words)) < budget:
            words += step
        return words - step

    def _fitting(self, budget: int, words: int, step: int) -> tuple[str, list[str]]:
        vocabulary = self._vocabulary(budget)
        while (total := self._count(text := self._text(vocabulary, words))) > budget:
            if words <= 0:
                raise DoesNotFitError([total + TEMPLATES["fwe"].tokens_to_generate])
            words -= step
        return text, vocabulary[1:4]

    def _vocabulary(self, budget: int) -> list[str]:
        """The words from the most frequent to the rarest; the dots come first."""
        size = budget // 50
        words = [self._word() for _ in range(size)]
        while len(set(words)) < size:
            words.append(self._word())
        vocabulary = sorted(set(words))
        random.Random(self._seed).shuffle(vocabulary)
        vocabulary[0] = NOISE_WORD
        return vocabulary

    def _word(self) -> str:
        return "".join(self._random.choices(string.ascii_lowercase, k=LETTERS))

    def _text(self, vocabulary: list[str], words: int) -> str:
        ranks = np.arange(1, len(vocabulary) + 1)
        counts = (words * (ranks**-ALPHA) / zeta(ALPHA)).astype(int)
        coded = [word for word, count in zip(vocabulary, counts.tolist(), strict=True) for _ in range(count)]
        random.Random(self._seed).shuffle(coded)
        return TEMPLATES["fwe"].text.format(context=" ".join(coded))
