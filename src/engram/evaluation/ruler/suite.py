"""RULER as tasks for `engram.evaluation.run`: samples at one length, scores, and the score of a mere echo."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from engram.errors import UserError
from engram.evaluation.environment import offline as without_network
from engram.evaluation.ruler.generate import samples
from engram.evaluation.ruler.sample import Sample
from engram.evaluation.ruler.scoring import echo_floor, score
from engram.evaluation.ruler.tasks import NEEDLES, QA_SETS, TASKS, tokens_to_generate
from engram.evaluation.tasks import CustomTask

GROUP = "ruler"
SAMPLES = 500
"""Samples per task in RULER."""
VERSION = "c3f5e3b4"
"""Commit of NVIDIA/RULER that generator and scores follow."""


@dataclass(frozen=True)
class Sources:
    """Files for the tasks that need external text; None: downloaded from the hub, or from where RULER itself gets them."""

    haystack: tuple[Path, ...] | None = None
    squad: Path | None = None
    hotpotqa: Path | None = None
    words: Path | None = None


@dataclass(frozen=True)
class Suite:
    """Tasks at one length."""

    tasks: tuple[CustomTask, ...]
    floors: dict[str, float]
    """By task, the score of answers that repeat the end of the prompt (`echo_floor`), from 0 to 1."""
    left_out: dict[str, str]
    """Tasks that are not available, and why."""


def ruler_suite(
    names: Sequence[str],
    length: int,
    tokenizer: Tokenizer,
    n: int,
    sources: Sources,
    *,
    offline: bool = False,
) -> Suite:
    """RULER tasks whose samples take at most `length` tokens of `tokenizer`, with scores from 0 to 1.

    Args:
        names: tasks; empty: all 13 as one group, without those that don't fit or whose texts are not available.
        length: tokens of prompt and answer.
        tokenizer: of the model.
        n: samples per task.
        sources: external texts.
        offline: never use the network.

    Raises UserError when a task in `names` is not available, or, without names, none is.
    """
    tasks: list[CustomTask] = []
    floors: dict[str, float] = {}
    left_out: dict[str, str] = {}
    broken: dict[str, str] = {}  # by kind of source, so that a failed download is not tried twice
    for name in names or TASKS:
        try:
            if (kind := _source(name, sources)) in broken:
                raise UserError(broken[kind])
            try:
                with without_network(offline):
                    found = _samples(name, length, tokenizer, n, sources)
            except UserError as problem:
                if kind and "does not fit" not in str(problem):
                    broken[kind] = str(problem)
                raise
        except UserError as problem:
            if names:
                raise
            left_out[name] = str(problem)
            continue
        tasks.append(_task(name, found, None if names else GROUP))
        floors[name] = echo_floor(name, found, tokenizer) / 100
    if not tasks:
        raise UserError(f"no task of RULER can be had at {length} tokens: {next(iter(left_out.values()))}")
    return Suite(tuple(tasks), floors, left_out)


def _source(name: str, sources: Sources) -> str:
    """The external text that a task needs and was not given; empty if none."""
    if name in NEEDLES and NEEDLES[name].haystack == "essay" and sources.haystack is None:
        return "essays"
    if name in QA_SETS and getattr(sources, QA_SETS[name]) is None:
        return QA_SETS[name]
    return ""


def _samples(name: str, length: int, tokenizer: Tokenizer, n: int, sources: Sources) -> list[Sample]:
    qa = getattr(sources, QA_SETS[name]) if name in QA_SETS else None
    return samples(name, length, tokenizer, n, haystack=sources.haystack, qa=qa, words=sources.words)


def _task(name: str, found: Sequence[Sample], group: str | None) -> CustomTask:
    rows = [{"input": sample.input, "answer_prefix": sample.answer_prefix, "outputs": sample.outputs} for sample in found]
    scored: Callable[[str, Sequence[str]], float] = partial(_share, name)
    return CustomTask(name, rows, tokens_to_generate(name), scored, group=group, version=VERSION)


def _share(name: str, prediction: str, outputs: Sequence[str]) -> float:
    return score(name, prediction, outputs) / 100
