"""Question answering among documents; source: NVIDIA/RULER `scripts/data/synthetic/qa.py` at c3f5e3b4."""

import random
from dataclasses import dataclass
from itertools import cycle, islice

from engram.errors import UserError
from engram.evaluation.ruler.fit import PATIENCE, Draw, draw_fitting, largest_size, search_bound
from engram.evaluation.ruler.sample import Encode, Sample
from engram.evaluation.ruler.tasks import TEMPLATES

STEP = 10


@dataclass(frozen=True)
class Question:
    """One question of a data set."""

    query: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]
    """Indices of the documents that belong to the question."""
    neighbours: tuple[int, ...] = ()
    """Indices of the other documents of the same article, which are added first."""


@dataclass(frozen=True)
class QuestionSet:
    """Documents, sorted, and the questions about them."""

    source: str
    """Where it was read from, for messages."""
    documents: tuple[str, ...]
    questions: tuple[Question, ...]


class DocumentsTask:
    """Generates samples of `qa_1` and `qa_2`: sample `i` asks question `i`."""

    def __init__(self, task: str, questions: QuestionSet, encode: Encode, seed: int) -> None:
        self._task = task
        self._set = questions
        self._encode = encode
        self._seed = seed
        self._random = random.Random(seed)

    def __call__(self, length: int, n: int, patience: int = PATIENCE) -> list[Sample]:
        """The first `n` samples of at most `length` tokens; the same at every call."""
        if n > len(self._set.questions):
            raise UserError(f"{self._task} has {len(self._set.questions)} questions in {self._set.source}, fewer than the {n} asked for")
        self._random = random.Random(self._seed)
        spare = TEMPLATES["qa"].tokens_to_generate
        bound = search_bound(length, self._count(self._draw(0, STEP)[0]), STEP)
        size = largest_size(self._drawer(0), self._count, length - spare, STEP, bound)
        samples = []
        for index in range(n):
            text, answers, total = draw_fitting(self._drawer(index), self._count, length, spare, size, STEP, patience)
            question, prefix = TEMPLATES["qa"].cut(text)
            samples.append(Sample(index, question, tuple(answers), total, prefix))
        return samples

    def _count(self, text: str) -> int:
        return len(self._encode(text))

    def _drawer(self, index: int) -> Draw:
        return lambda size: self._draw(index, size)

    def _draw(self, index: int, size: int) -> tuple[str, list[str]]:
        question = self._set.questions[index]
        documents = self._set.documents
        if size < len(documents):
            near = [*question.documents, *question.neighbours]
            missing = size - len(question.documents)
            if missing > len(question.neighbours):
                known = set(near)
                others = [place for place in range(len(documents)) if place not in known]
                places = near + self._random.sample(others, missing - len(question.neighbours))
            else:
                places = [*question.documents, *self._random.sample(question.neighbours, missing)]
            chosen = [documents[place] for place in places]
        else:
            # All of them, repeatedly, whether or not the question's own are among them.
            chosen = list(islice(cycle(documents), size))
        random.Random(self._seed).shuffle(chosen)
        context = "\n\n".join(f"Document {number}:\n{document}" for number, document in enumerate(chosen, start=1))
        return TEMPLATES["qa"].text.format(context=context, query=question.query), list(question.answers)
