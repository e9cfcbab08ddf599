"""Benchmarks a model: lm-eval runs its tasks, and there is one result per task and group."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engram.errors import UserError
from engram.evaluation.environment import offline as without_network
from engram.evaluation.environment import quiet, require_lm_eval
from engram.evaluation.metrics import Answer, Item, bits, items, mean, right_answer
from engram.evaluation.task_files import mistakes_of_tasks
from engram.evaluation.tasks import CustomTask, load_tasks

require_lm_eval()

import lm_eval  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402

BOOTSTRAP = 1000
"""Resamples for the standard error of scores that are not means."""


@dataclass(frozen=True)
class Score:
    """A score over all items of a task."""

    metric: str
    filter: str
    """How the model's answers were filtered before scoring; `none`: not at all."""
    value: float
    """On lm-eval's scale: accuracies from 0 to 1."""
    stderr: float | None
    higher_is_better: bool


@dataclass(frozen=True)
class TaskResult:
    """How a model did on one task, or on all tasks of a group."""

    task: str
    group: str
    """The group that it belongs to, or empty; for `mmlu_anatomy` it is `mmlu_stem`."""
    is_group: bool
    metric: str
    """The first that the task or group lists."""
    filter: str
    score: float
    stderr: float | None
    higher_is_better: bool
    chance: float | None
    """Accuracy of guessing; None where answers are written rather than chosen."""
    bpb: float | None
    """Bits per byte of the right answer, mean over items; for tasks that score texts, of the whole text."""
    n: int
    n_truncated: int
    """Items whose prompt lost tokens because it did not fit the model's length."""
    fewshot: int
    version: str
    """Of the task's definition in lm-eval."""
    others: tuple[Score, ...] = ()
    """All other metrics that lm-eval computes for it."""
    items: tuple[Item, ...] = field(default=(), repr=False)
    """Empty for a group, whose tasks have them."""

    @property
    def truncated_share(self) -> float:
        return self.n_truncated / self.n


def evaluate(
    model: LM,
    tasks: Sequence[str],
    *,
    data: Path | None = None,
    limit: int | None = None,
    fewshot: int | None = None,
    offline: bool = False,
    custom: Sequence[CustomTask] = (),
    answer_bpb: bool = True,
) -> list[TaskResult]:
    """Run tasks on a model; groups come before the tasks in them.

    Args:
        model: an `EngramLM`, or any model of lm-eval's.
        tasks: names of lm-eval's tasks, groups and tags.
        data: folder with rows of tasks (`data.FORMS`); what is not there comes from the Hugging Face hub.
        limit: use only this many items of each task, from the first; None: all.
        fewshot: examples in prompts; None: as the task says, and five in MMLU.
        offline: never use the network.
        custom: tasks made from samples.
        answer_bpb: whether to score the right answers of tasks with generated answers too, which takes one more request per item.

    Raises UserError for unknown tasks and options, and for data that is not available.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be 1 or more")
    truncated: dict[str, set[int]] = getattr(model, "truncated", {})
    truncated.clear()
    with quiet(), without_network(offline):
        loaded = load_tasks(tasks, custom, data=data, fewshot=fewshot, without_network=offline)
        with mistakes_of_tasks(tasks):
            results: Any = lm_eval.evaluate(model, loaded, limit=limit, bootstrap_iters=BOOTSTRAP, log_samples=True)
        answers = {name: _right_answers(task, results["samples"][name]) for name, task in loaded["tasks"].items()}
        if answer_bpb:
            _score_answers(model, answers)
    by_task = {
        name: tuple(items(task, results["samples"][name], truncated.get(name, set()), answers[name]))
        for name, task in loaded["tasks"].items()
    }
    return list(_results(loaded, results, by_task))


def _right_answers(task: Any, samples: Sequence[Mapping[str, Any]]) -> dict[int, Answer]:
    found = {}
    for sample in samples:
        if sample["doc_id"] not in found and (answer := right_answer(task, sample)) is not None:
            found[sample["doc_id"]] = answer
    return found


def _score_answers(model: LM, answers: dict[str, dict[int, Answer]]) -> None:
    """Fill in the bits of the answers for which the tasks themselves did not ask."""
    open_ones = [(task, doc_id, answer) for task, own in answers.items() for doc_id, answer in own.items() if answer.bits is None]
    # These requests name no task and document: truncated items are counted by the task's own requests.
    requests = [Instance("loglikelihood", {}, (answer.prompt, answer.text), 0) for _, _, answer in open_ones]
    if not requests:
        return
    for (task, doc_id, answer), (value, _) in zip(open_ones, model.loglikelihood(requests), strict=True):
        answers[task][doc_id] = Answer(answer.prompt, answer.text, bits(value))


def _results(loaded: Mapping[str, Any], results: Any, by_task: Mapping[str, tuple[Item, ...]]) -> Iterator[TaskResult]:
    groups = loaded["groups"]
    group_of = {child: name for name, group in groups.items() for child in group.child_names}
    done: set[str] = set()

    def visit(name: str) -> Iterator[TaskResult]:
        if name in done:
            return
        done.add(name)
        if name not in groups:
            yield _task_result(name, group_of.get(name, ""), loaded["tasks"][name], results, by_task[name])
            return
        result = _group_result(groups[name], group_of.get(name, ""), results, by_task)
        if result is not None:
            yield result
        for child in groups[name].child_names:
            yield from visit(child)

    for name in [*(name for name in groups if name not in group_of), *loaded["tasks"]]:
        yield from visit(name)


def _scores(name: str, results: Any, listed: Sequence[str]) -> list[Score]:
    """All scores of a task or group, those of `listed` metrics first."""
    found = []
    directions = results["higher_is_better"].get(name) or {}
    for key, value in results["results"][name].items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = results["results"][name].get(f"{metric}_stderr,{kind}")
        number = float(stderr) if isinstance(stderr, int | float) else None
        found.append(Score(metric, kind, float(value), number, directions.get(metric) is not False))
    place = {metric: i for i, metric in enumerate(listed)}
    return sorted(found, key=lambda score: place.get(score.metric, len(place)))  # stable, so filters stay in the task's order


def _task_result(name: str, group: str, task: Any, results: Any, own: tuple[Item, ...]) -> TaskResult:
    first, *others = _scores(name, results, list(task.aggregation())) or [Score("none", "none", float("nan"), None, True)]
    return TaskResult(
        task=name,
        group=group,
        is_group=False,
        metric=first.metric,
        filter=first.filter,
        score=first.value,
        stderr=first.stderr,
        higher_is_better=first.higher_is_better,
        chance=mean([item.chance for item in own]),
        bpb=mean([item.bpb for item in own if item.bpb is not None]),
        n=len(own),
        n_truncated=sum(item.truncated for item in own),
        fewshot=int(results["n-shot"].get(name) or 0),
        version=str(results["versions"].get(name)),
        others=tuple(others),
        items=own,
    )


def _group_result(group: Any, parent: str, results: Any, by_task: Mapping[str, tuple[Item, ...]]) -> TaskResult | None:
    """None for a group that only lists tasks."""
    listed = list(group.aggregate_metric_list or [])
    scores = _scores(group.name, results, [one.metric for one in listed])
    if not scores:
        return None
    first, *others = scores
    names = [task.task_name for task in group.get_all_tasks()]
    everything = [item for name in names for item in by_task[name]]
    weighted = any(one.weight_by_size for one in listed if one.metric == first.metric)

    def average(values: Mapping[str, list[float | None]]) -> float | None:
        """Mean over items or over tasks, whichever the group's score is."""
        return mean([v for own in values.values() for v in own]) if weighted else mean([mean(own) for own in values.values()])

    return TaskResult(
        task=group.name,
        group=parent,
        is_group=True,
        metric=first.metric,
        filter=first.filter,
        score=first.value,
        stderr=first.stderr,
        higher_is_better=first.higher_is_better,
        chance=average({name: [item.chance for item in by_task[name]] for name in names}),
        bpb=average({name: [item.bpb for item in by_task[name] if item.bpb is not None] for name in names}),
        n=len(everything),
        n_truncated=sum(item.truncated for item in everything),
        fewshot=max((int(results["n-shot"].get(name) or 0) for name in names), default=0),
        version=str(results["versions"].get(group.name)),
        others=tuple(others),
    )
