"""RULER's scores; source: NVIDIA/RULER `scripts/eval/synthetic/constants.py` and `scripts/eval/evaluate.py` at c3f5e3b4."""

import re
from collections.abc import Sequence

from tokenizers import Tokenizer

from engram.errors import UserError
from engram.evaluation.ruler.sample import Encode, Sample, as_encode, tail
from engram.evaluation.ruler.tasks import kind_of, tokens_to_generate

CONTROL = re.compile(r"[\x00-\x1f]")


def score(task: str, prediction: str, outputs: Sequence[str]) -> float:
    """Score of one answer, from 0 to 100.

    It is the share of the reference answers that the prediction contains (RULER's `string_match_all`); in the question answering tasks, 100
    if it contains any of them (`string_match_part`). Case is ignored. RULER reports a task's mean over its samples, rounded to two places.
    """
    kind = kind_of(task)
    if not outputs:
        raise UserError(f"a sample of {task} has no reference answer")
    # A newline can't be part of a reference, so this changes no score; the rest of RULER's clean-up concerns the ends.
    text = CONTROL.sub("\n", prediction.strip()).strip().lower()
    found = [output.lower() in text for output in outputs]
    return 100.0 * (any(found) if kind == "qa" else sum(found) / len(found))


def echo_floor(task: str, samples: Sequence[Sample], tokenizer: Tokenizer | Encode) -> float:
    """Mean score of a model that answers with the end of its prompt, as many tokens of it as it may generate.

    A model at or below this score has shown no more than copying.
    """
    if not samples:
        raise UserError(f"there are no samples of {task} to take the floor of")
    encode = as_encode(tokenizer)
    tokens = tokens_to_generate(task)
    return sum(score(task, tail(sample.prompt, tokens, encode), sample.outputs) for sample in samples) / len(samples)
