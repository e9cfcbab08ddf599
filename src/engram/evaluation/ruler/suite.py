"""RULER as tasks for `engram.evaluation.run`: its samples at one length, its scores, and the floor of an echo."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from engram.errors import UserError
from engram.evaluation.environment import offline as without_network
from engram.evaluation.ruler.generate import SEED, samples
from engram.evaluation.ruler.sample import Sample
from engram.evaluation.ruler.scoring import echo_floor, score
from engram.evaluation.ruler.tasks import NEEDLES, QA_SETS, TASKS, tokens_to_generate
from engram.evaluation.tasks import CustomTask

GROUP = "ruler"
SAMPLES = 500
"""Samples of a task in RULER."""
VERSION = "c3f5e3b4"
"""Commit of NVIDIA/RULER whose generator and scores these are."""


@dataclass(frozen=True)
class Sources:
    """Files for the tasks that need text from outside; None: the hub, or where RULER itself downloads from."""

    haystack: tuple[Path, ...] | None = None
    squad: Path | None = None
    hotpotqa: Path | None = None
    words: Path | None = None


@dataclass(frozen=True)
class Suite:
    """Tasks at one length."""

    tasks: tuple[CustomTask, ...]
    floors: dict[str, float]
    """By task, share of the score that an answer has which repeats the end of its prompt (`echo_floor`), 0 to 1."""
    left_out: dict[str, str]
    """Tasks that can't be had, and why."""


def ruler_suite(
    names: Sequence[str],
    length: int,
    tokenizer: Tokenizer,
    n: int,
    sources: Sources,
    *,
    seed: int = SEED,
    offline: bool = False,
) -> Suite:
    """RULER tasks whose samples take at most `length` tokens of `tokenizer`, scores as shares from 0 to 1.

    Args:
        names: tasks; with none, all 13 as one group, where those that don't fit or whose texts can't be had are left out.
        length: tokens of prompt and answer.
        tokenizer: of the model.
        n: samples of each task.
        sources: texts from outside.
        seed: of the samples.
        offline: never use the network.

    Raises UserError when a task of `names` can't be had, or none of all.
    """
    tasks: list[CustomTask] = []
    floors: dict[str, float] = {}
    left_out: dict[str, str] = {}
    broken: dict[str, str] = {}  # by kind of source, so that no network is tried twice
    for name in names or TASKS:
        try:
            if (kind := _source(name, sources)) in broken:
                raise UserError(broken[kind])
            try:
                with without_network(offline):
                    found = _samples(name, length, tokenizer, n, seed, sources)
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
    """What a task needs from outside and was not given; empty: nothing."""
    if name in NEEDLES and NEEDLES[name].haystack == "essay" and sources.haystack is None:
        return "essays"
    if name in QA_SETS and getattr(sources, QA_SETS[name]) is None:
        return QA_SETS[name]
    return ""


def _samples(name: str, length: int, tokenizer: Tokenizer, n: int, seed: int, sources: Sources) -> list[Sample]:
    qa = getattr(sources, QA_SETS[name]) if name in QA_SETS else None
    return samples(name, length, tokenizer, n, seed, haystack=sources.haystack, qa=qa, words=sources.words)


def _task(name: str, found: Sequence[Sample], group: str | None) -> CustomTask:
    rows = [{"input": sample.input, "answer_prefix": sample.answer_prefix, "outputs": sample.outputs} for sample in found]
    scored: Callable[[str, Sequence[str]], float] = partial(_share, name)
    return CustomTask(name, rows, tokens_to_generate(name), scored, group=group, version=VERSION)


def _share(name: str, prediction: str, outputs: Sequence[str]) -> float:
    return score(name, prediction, outputs) / 100
