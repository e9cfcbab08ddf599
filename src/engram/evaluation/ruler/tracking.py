"""Variable tracking; source: NVIDIA/RULER `scripts/data/synthetic/variable_tracking.py` at c3f5e3b4."""

import random
import string
from itertools import pairwise

import numpy as np

from engram.errors import UserError
from engram.evaluation.ruler.fit import PATIENCE, DoesNotFitError, draw_fitting, largest_size, search_bound
from engram.evaluation.ruler.needles import NOISE, SHORT
from engram.evaluation.ruler.sample import Encode, Sample
from engram.evaluation.ruler.tasks import TEMPLATES

HOPS = 4
EXAMPLE_LENGTH = 500
EXAMPLE_VALUE = "12345"


class TrackingTask:
    """Generates samples of `vt`: one chain of four hops; one solved example comes first."""

    def __init__(self, encode: Encode, seed: int) -> None:
        self._encode = encode
        self._seed = seed
        self._start()

    def _start(self) -> None:
        self._random = random.Random(self._seed)
        # RULER draws the numbers from NumPy's global, legacy generator.
        self._numpy = np.random.RandomState(self._seed)

    def __call__(self, length: int, n: int, patience: int = PATIENCE) -> list[Sample]:
        """The first `n` samples of at most `length` tokens; the same at every call."""
        self._start()
        try:
            return self._samples(length, n, patience)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            # This happens with one seed in hundreds; RULER's generator ends with a traceback.
            raise UserError(f"vt can't be made with the seed {self._seed}: it draws a variable's name twice; take another seed") from error

    def _samples(self, length: int, n: int, patience: int) -> list[Sample]:
        example = self._example()
        step = 5 if length < SHORT else 10
        spare = TEMPLATES["vt"].tokens_to_generate
        bound = search_bound(length, self._count(self._draw(step)[0]), step)
        size = largest_size(self._draw, self._count, length - spare - self._count(example), step, bound)

        def draw_with_example(size: int) -> tuple[str, list[str]]:
            text, names = self._draw(size)
            return f"{self._renamed(example)}\n{text}", names

        samples = []
        for index in range(n):
            text, names, total = draw_fitting(draw_with_example, self._count, length, spare, size, step, patience)
            question, prefix = TEMPLATES["vt"].cut(text)
            samples.append(Sample(index, question, tuple(names), total, prefix))
        return samples

    def _count(self, text: str) -> int:
        return len(self._encode(text))

    def _example(self) -> str:
        """A solved question of at most 500 tokens, whose names and number change from sample to sample."""
        step = 5

        def draw(size: int) -> tuple[str, list[str]]:
            return self._draw(size, letters=3, value=EXAMPLE_VALUE)

        bound = search_bound(EXAMPLE_LENGTH, self._count(draw(step)[0]), step)
        size = largest_size(draw, self._count, EXAMPLE_LENGTH, step, bound)
        try:
            text, names, _ = draw_fitting(draw, self._count, EXAMPLE_LENGTH, 0, size, step)
        except DoesNotFitError as error:
            raise UserError(
                f"vt can't be made with this tokenizer: RULER's solved example has {EXAMPLE_LENGTH} tokens at most, "
                f"the shortest here has {min(error.totals, default=0)}"
            ) from error
        return f"{text} {' '.join(names)}\n"

    def _draw(self, size: int, letters: int = 5, value: str | None = None) -> tuple[str, list[str]]:
        names = [self._name(letters) for _ in range(HOPS + 1)]
        while len(set(names)) < HOPS + 1:
            names.append(self._name(letters))
        value = value or str(self._numpy.randint(10000, 99999))
        if len(names) > HOPS + 1:
            # After a repeated name, RULER begins a second chain, draws its number, and fails for lack of names. In the example it draws
            # none.
            self._numpy.randint(10000, 99999)
            raise ValueError(f"{len(names)} names for one chain")
        statements = [f"VAR {names[0]} = {value}"]
        statements += [f"VAR {later} = VAR {earlier} " for earlier, later in pairwise(names)]
        lines = [NOISE] * size
        places = sorted(self._random.sample(range(size), len(statements)))
        for before, (place, statement) in enumerate(zip(places, statements, strict=True)):
            lines.insert(place + before, statement)
        context = "\n".join(lines).replace(". \n", ".\n")
        return TEMPLATES["vt"].text.format(context=context, query=value, num_v=HOPS + 1), names

    def _name(self, letters: int) -> str:
        return "".join(self._random.choices(string.ascii_uppercase, k=letters))

    def _renamed(self, example: str) -> str:
        for name in example.split()[-HOPS - 1 :]:
            example = example.replace(name, self._name(len(name)))
        return example.replace(EXAMPLE_VALUE, str(self._numpy.randint(10000, 99999)))
