"""The eight needle-in-a-haystack tasks; source: NVIDIA/RULER `scripts/data/synthetic/niah.py` at c3f5e3b4."""

import random
import uuid
from collections.abc import Callable

from engram.evaluation.ruler.fit import PATIENCE, draw_fitting, largest_size, search_bound
from engram.evaluation.ruler.sample import Encode, Sample
from engram.evaluation.ruler.tasks import TEMPLATES, NeedleKind, Needles
from engram.evaluation.ruler.words import adjective_nouns

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = "One of the special magic {type_needle_v} for {key} is: {value}."
DEPTHS = [round(place * 100 / 39) for place in range(40)]
"""Possible places of needles in an essay, in per cent."""
SHORT = 4096
"""Below this length, the size of a context changes in smaller steps."""

Sentences = Callable[[int], list[str]]
"""Sentences of an essay's first N words, given N."""


class NeedleTask:
    """Generates samples of one needle task."""

    def __init__(self, needles: Needles, encode: Encode, seed: int, essay: Sentences | None) -> None:
        self.needles = needles
        self._encode = encode
        self._seed = seed
        self._essay = essay
        self._random = random.Random(seed)

    def __call__(self, length: int, n: int, patience: int = PATIENCE) -> list[Sample]:
        """The first `n` samples of at most `length` tokens; the same at every call."""
        self._random = random.Random(self._seed)
        short = 5 if length < SHORT else 25
        step = 500 if self.needles.haystack == "essay" else short
        spare = TEMPLATES["niah"].tokens_to_generate
        bound = search_bound(length, self._count(self._draw(step)[0]), step)
        size = largest_size(self._draw, self._count, length - spare, step, bound)
        return [self._sample(*draw_fitting(self._draw, self._count, length, spare, size, step, patience)) for _ in range(n)]

    def _count(self, text: str) -> int:
        return len(self._encode(text))

    def _sample(self, text: str, answers: list[str], total: int) -> Sample:
        question, prefix = TEMPLATES["niah"].cut(text)
        place = question.find(answers[0])
        return Sample(place, question, tuple(answers), total, prefix, self._count(question[:place]))

    def _draw(self, size: int) -> tuple[str, list[str]]:
        settings = self.needles
        keys: list[str] = []
        values: list[list[str]] = []
        sentences: list[str] = []
        for _ in range(settings.key_count):
            keys.append(self._thing(settings.keys))
            values.append([])
            for _ in range(settings.values_per_key):
                values[-1].append(self._thing(settings.values))
                sentences.append(NEEDLE.format(type_needle_v=settings.values, key=keys[-1], value=values[-1][-1]))
        random.Random(self._seed).shuffle(sentences)
        context = self._hide_in_essay(sentences, size) if settings.haystack == "essay" else self._hide_in_lines(sentences, size)
        asked = self._random.sample(range(settings.key_count), settings.queries)
        answers = [value for number in asked for value in values[number]]
        return _question(settings, [keys[number] for number in asked], context), answers

    def _thing(self, kind: NeedleKind) -> str:
        if kind == "numbers":
            return str(self._random.randint(10**6, 10**7 - 1))
        if kind == "words":
            return self._random.choice(adjective_nouns())
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _hide_in_lines(self, needles: list[str], size: int) -> str:
        settings = self.needles
        if settings.haystack == "noise":
            lines = [NOISE] * size
        else:
            lines = []
            for _ in range(size):
                key, value = self._thing(settings.keys), self._thing(settings.values)
                lines.append(NEEDLE.format(type_needle_v=settings.values, key=key, value=value))
        # From the last place to the first, so that earlier places stay valid.
        places = sorted(self._random.sample(range(size), len(needles)), reverse=True)
        for place, needle in zip(places, needles, strict=True):
            lines.insert(place, needle)
        return "\n".join(lines)

    def _hide_in_essay(self, needles: list[str], size: int) -> str:
        assert self._essay is not None
        sentences = self._essay(size)
        places = sorted(int(len(sentences) * (depth / 100)) for depth in self._random.sample(DEPTHS, len(needles)))
        parts: list[str] = []
        start = 0
        for place, needle in zip(places, needles, strict=True):
            # An empty part stays in: the needle then has two spaces on one side.
            parts += [" ".join(sentences[start:place]), needle]
            start = place
        return " ".join([*parts, " ".join(sentences[start:])])


def _question(settings: Needles, queries: list[str], context: str) -> str:
    template = TEMPLATES["niah"].text
    kind: str = settings.values
    if settings.queries * settings.values_per_key == 1:
        template = template.replace("Some", "A").replace("are all", "is").replace("are", "is")
        kind = kind.removesuffix("s")
    query = queries[0] if len(queries) == 1 else f"{', '.join(queries[:-1])}, and {queries[-1]}"
    return template.format(type_needle_v=kind, context=context, query=query)
