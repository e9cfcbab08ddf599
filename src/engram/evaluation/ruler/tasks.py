"""The 13 tasks of RULER (Hsieh et al., arXiv 2404.06654): what each one asks, and how long its answers may be.

Templates, numbers of tokens and settings are those of NVIDIA/RULER: `scripts/data/synthetic/constants.py` and `scripts/synthetic.yaml` at
c3f5e3b4. They must match to the letter, or scores can't be compared with anyone else's.
"""

from dataclasses import dataclass
from typing import Literal

from engram.errors import UserError

Kind = Literal["niah", "vt", "cwe", "fwe", "qa"]
HaystackKind = Literal["noise", "essay", "needle"]
NeedleKind = Literal["numbers", "words", "uuids"]


@dataclass(frozen=True)
class Template:
    """How tasks of one kind are put to a model."""

    question: str
    answer_prefix: str
    """Beginning of the answer, which follows the question in the prompt (after the chat template, for models with one)."""
    tokens_to_generate: int
    """Tokens of the answer, which count towards the length."""

    @property
    def text(self) -> str:
        return self.question + self.answer_prefix

    def cut(self, prompt: str) -> tuple[str, str]:
        """The prompt without its answer prefix, and the prefix, which is found by its first ten characters, as in RULER."""
        start = prompt.rfind(self.answer_prefix[:10])
        return prompt[:start], prompt[start:]


TEMPLATES: dict[Kind, Template] = {
    "niah": Template(
        "Some special magic {type_needle_v} are hidden within the following text. Make sure to memorize it. I will quiz you about the "
        "{type_needle_v} afterwards.\n{context}\nWhat are all the special magic {type_needle_v} for {query} mentioned in the provided "
        "text?",
        " The special magic {type_needle_v} for {query} mentioned in the provided text are",
        128,
    ),
    "vt": Template(
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find all variables "
        "that are assigned the value {query} in the text above.",
        " Answer: According to the chain(s) of variable assignment in the text above, {num_v} variables are assigned the value {query}, "
        "they are: ",
        30,
    ),
    "cwe": Template(
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear most often.\n"
        "{context}\nQuestion: What are the 10 most common words in the above list?",
        " Answer: The top 10 words that appear most often in the list are:",
        120,
    ),
    "fwe": Template(
        "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared coded words. "
        "{context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently appeared "
        "words in the above coded text?",
        " Answer: According to the coded text above, the three most frequently appeared words are:",
        50,
    ),
    "qa": Template(
        "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\nThe following are "
        "given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give me the answer and do not output any "
        "other words.\n\nQuestion: {query}",
        " Answer:",
        32,
    ),
}


@dataclass(frozen=True)
class Needles:
    """Settings of one needle-in-a-haystack task."""

    haystack: HaystackKind
    keys: NeedleKind = "words"
    values: NeedleKind = "numbers"
    key_count: int = 1
    values_per_key: int = 1
    queries: int = 1


NEEDLES: dict[str, Needles] = {
    "niah_single_1": Needles("noise"),
    "niah_single_2": Needles("essay"),
    "niah_single_3": Needles("essay", values="uuids"),
    "niah_multikey_1": Needles("essay", key_count=4),
    "niah_multikey_2": Needles("needle"),
    "niah_multikey_3": Needles("needle", keys="uuids", values="uuids"),
    "niah_multivalue": Needles("essay", values_per_key=4),
    # synthetic.yaml says one key; the generator raises it to the number of queries.
    "niah_multiquery": Needles("essay", key_count=4, queries=4),
}
SINGLE: dict[str, Kind] = {"vt": "vt", "cwe": "cwe", "fwe": "fwe"}
"""Tasks that are the only ones of their kind."""
QA_SETS: dict[str, Literal["squad", "hotpotqa"]] = {"qa_1": "squad", "qa_2": "hotpotqa"}

CATEGORIES: dict[str, tuple[str, ...]] = {
    "Single NIAH": ("niah_single_1", "niah_single_2", "niah_single_3"),
    "Multi-key NIAH": ("niah_multikey_1", "niah_multikey_2", "niah_multikey_3"),
    "Multi-value NIAH": ("niah_multivalue",),
    "Multi-query NIAH": ("niah_multiquery",),
    "VT": ("vt",),
    "CWE": ("cwe",),
    "FWE": ("fwe",),
    "QA": ("qa_1", "qa_2"),
}
"""The eight categories that the paper reports, each with its tasks; a category's score is the mean of its tasks' scores."""
TASKS: tuple[str, ...] = tuple(task for tasks in CATEGORIES.values() for task in tasks)


def kind_of(task: str) -> Kind:
    """Which of the five generators makes `task`; UserError if there is no such task."""
    if task in NEEDLES:
        return "niah"
    if task in QA_SETS:
        return "qa"
    if task in SINGLE:
        return SINGLE[task]
    raise UserError(f"there is no RULER task {task}; the tasks are {', '.join(TASKS)}")


def tokens_to_generate(task: str) -> int:
    """Tokens that an answer to `task` may take, which are part of the length."""
    return TEMPLATES[kind_of(task)].tokens_to_generate
