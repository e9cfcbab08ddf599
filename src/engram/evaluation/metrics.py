"""Scores of single items: lm-eval's own, bits per byte of the right answer, and what chance would give."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_OPTION = re.compile(r"^(?:\([A-Z]\)|-) ", re.MULTILINE)
_PAIRS = ({"yes", "no"}, {"true", "false"}, {"valid", "invalid"})


@dataclass(frozen=True)
class Item:
    """One question of a task; models are compared on the same questions."""

    doc_id: int
    """Number in the task's data."""
    doc_hash: str
    """Hash of the question's row, equal in two results if the question is the same."""
    scores: dict[str, float]
    """lm-eval's scores, `METRIC,FILTER` -> score, except those that exist for a whole task only."""
    bpb: float | None
    """Bits per byte of the right answer; None if the task has none, or it was not asked for."""
    chance: float | None
    """Probability that a guess among the choices is right, 0 for free answers; None where it has no meaning."""
    truncated: bool
    """Whether its prompt lost tokens because it did not fit the model's length."""


@dataclass(frozen=True)
class Answer:
    """A right answer and the prompt that it continues."""

    prompt: str
    text: str
    """Including the delimiter before it."""
    bits: float | None = field(default=None, compare=False)
    """-log2 of its probability, once it is known."""

    @property
    def bpb(self) -> float | None:
        return None if self.bits is None else self.bits / answer_bytes(self.text)


def answer_bytes(text: str) -> int:
    """UTF-8 bytes of an answer, at least one; leading white space does not count, as in OLMo's evaluation.

    (allenai/OLMo `olmo/eval/downstream.py`: `cont_byte_len` is that of the continuation without its leading space.)
    """
    return max(1, len(text.lstrip().encode()))


def bits(log_likelihood: float) -> float:
    """A log-likelihood in nats as bits of information."""
    return -log_likelihood / math.log(2)


def items(task: Any, samples: Sequence[Mapping[str, Any]], truncated: set[int], answers: Mapping[int, Answer]) -> list[Item]:
    """Items of a task, from lm-eval's log, which has a sample per document and filter.

    Args:
        task: lm-eval's task.
        samples: `results["samples"][task]`.
        truncated: documents that lost tokens.
        answers: right answers with their bits, by document.
    """
    binary = is_binary([sample["target"] for sample in samples])
    by_doc: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_doc.setdefault(sample["doc_id"], []).append(sample)
    found = []
    for doc_id, own in sorted(by_doc.items()):
        scores = {
            f"{metric},{sample['filter']}": float(sample[metric])
            for sample in own
            for metric in sample["metrics"]
            if isinstance(sample.get(metric), int | float | np.number)  # bools included
        }
        answer = answers.get(doc_id)
        bpb = rolling_bpb(own[0]) if task.OUTPUT_TYPE == "loglikelihood_rolling" else answer.bpb if answer else None
        found.append(Item(doc_id, own[0]["doc_hash"], scores, bpb, chance(task, own[0], binary), doc_id in truncated))
    return found


def right_answer(task: Any, sample: Mapping[str, Any]) -> Answer | None:
    """The right answer of a sample, with its bits if the task itself has asked for them; None unless there is exactly one."""
    target = sample["target"]
    if task.OUTPUT_TYPE == "multiple_choice":
        gold = gold_choices(task, sample)
        if not gold:
            return None
        prompt, text = sample["arguments"][gold[0]][:2]
        return Answer(prompt, text, bits(sample["filtered_resps"][gold[0]][0]))
    if task.OUTPUT_TYPE == "loglikelihood":
        prompt, text = sample["arguments"][0][:2]
        return Answer(prompt, text, bits(sample["filtered_resps"][0][0]))
    if task.OUTPUT_TYPE != "generate_until":
        return None
    if isinstance(target, list | tuple):
        target = target[0] if target else None
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        target = task.doc_to_choice(sample["doc"])[target]
    if not isinstance(target, str | int | float) or not str(target).strip():
        return None
    return Answer(sample["arguments"][0][0], f"{task.config.target_delimiter or ''}{target}")


def gold_choices(task: Any, sample: Mapping[str, Any]) -> list[int]:
    """Numbers of the right choices; empty if the row names none of its choices."""
    gold = task.doc_to_text(sample["doc"]) if getattr(task, "multiple_input", 0) else sample["target"]
    choices = task.doc_to_choice(sample["doc"])
    numbers = [
        choices.index(one) if isinstance(one, str) and one in choices else one for one in (gold if isinstance(gold, list) else [gold])
    ]
    return [one for one in numbers if isinstance(one, int) and 0 <= one < len(choices)]


def chance(task: Any, sample: Mapping[str, Any], binary: bool = False) -> float | None:
    """Probability that a guess is right.

    For choices it is the share of right ones. For an answer that has to be written it is that share among the options that the question
    lists after `Options:`, one half if all answers of the task come from a pair such as yes and no (`binary`), and otherwise 0.
    """
    if task.OUTPUT_TYPE == "multiple_choice":
        return max(1, len(gold_choices(task, sample))) / len(task.doc_to_choice(sample["doc"]))
    if task.OUTPUT_TYPE != "generate_until" or not any(metric.startswith("exact_match") for metric in sample["metrics"]):
        return None
    _, there, options = str(task.doc_to_text(sample["doc"])).rpartition("Options:")
    listed = len(_OPTION.findall(options)) if there else 0
    if listed > 1:
        return 1 / listed
    return 0.5 if binary else 0.0


def is_binary(targets: Sequence[Any]) -> bool:
    """Whether all answers come from one pair, such as yes and no."""
    found = {str(target).strip().lower() for target in targets}
    return any(found <= pair for pair in _PAIRS)


def rolling_bpb(sample: Mapping[str, Any]) -> float | None:
    """Bits per byte of a whole text."""
    for metric in ("bits_per_byte", "byte_perplexity"):
        value = sample.get(metric)
        if isinstance(value, tuple | list):
            return bits(value[0]) / max(1, value[1])
    return None


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of numbers; None if there are none or one of them is None."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there and len(there) == len(values) else None
