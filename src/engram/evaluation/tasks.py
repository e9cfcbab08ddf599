"""lm-eval's tasks, loaded quickly, with data from a folder or the hub, and tasks made from our own samples."""

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.errors import UserError
from engram.evaluation.data import FORMS, MMLU, LocalData
from engram.evaluation.environment import offline, require_lm_eval
from engram.evaluation.json_files import check_json_files
from engram.evaluation.local_rows import Splits, check_answers, row_error
from engram.evaluation.task_names import defined_names, definitions, undefined
from engram.tokenizer.hub import require_hub, short_cause

require_lm_eval()

from lm_eval.api.group import Group  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.config.group import GroupConfig  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.tasks._factory import TaskFactory  # noqa: E402
from lm_eval.tasks._index import Entry, Kind  # noqa: E402

if TYPE_CHECKING:
    from lm_eval.api.task import Task

FEWSHOT_SEED = 1234
"""lm-eval's own seed, for tasks that draw their examples."""
MMLU_SHOTS = 5
"""Number of examples with which MMLU is reported (Hendrycks et al., 2021, arXiv 2009.03300); lm-eval's task leaves it to the user."""
_LOCAL_FORMATS = ("json", "csv", "parquet", "text", "arrow", "pandas")


@dataclass(frozen=True)
class CustomTask:
    """A task with generated answers, made from samples, such as one of RULER's at one length."""

    name: str
    samples: Sequence[Mapping[str, Any]]
    """Each with `input`, `outputs` (the right answers) and optionally `answer_prefix`, which ends the prompt."""
    tokens_to_generate: int
    score: Callable[[str, Sequence[str]], float]
    """From what the model wrote and the right answers to a number; the task's score is the mean over samples."""
    group: str | None = None
    """Tasks of one group also get a common result, the mean of their scores with equal weights."""
    until: Sequence[str] = ()
    """Strings before which an answer ends, in addition to the end of the text."""
    answer: Callable[[Sequence[str]], str] = field(default=", ".join)
    """From the right answers to what the model should have written, for its bits per byte."""
    delimiter: str = " "
    """What separates prompt and answer, unless the prompt ends in white space."""
    version: str = "1"
    metric: str = "score"

    def build(self) -> "Task":
        """The task for lm-eval."""
        import datasets

        if not self.samples:
            raise UserError(f"task {self.name} has no samples")
        rows = []
        for sample in self.samples:
            prompt = str(sample["input"]) + str(sample.get("answer_prefix") or "")
            outputs = [str(output) for output in sample["outputs"]]
            answer = self.answer(outputs)
            rows.append({"prompt": prompt, "outputs": outputs, "answer": answer if prompt[-1:].isspace() else self.delimiter + answer})
        found = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
        return ConfigurableTask(
            config={
                "task": self.name,
                "custom_dataset": lambda **_: found,
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_text": lambda doc: doc["prompt"],
                "doc_to_target": lambda doc: doc["answer"],
                "target_delimiter": "",
                "process_results": lambda doc, results: {self.metric: self.score(results[0], doc["outputs"])},
                "metric_list": [{"metric": self.metric, "aggregation": "mean", "higher_is_better": True}],
                "generation_kwargs": {"until": list(self.until), "max_gen_toks": self.tokens_to_generate, "do_sample": False},
                "num_fewshot": 0,
                "metadata": {"version": self.version},
            }
        )


def load_tasks(
    names: Sequence[str], custom: Sequence[CustomTask], *, data: Path | None, fewshot: int | None, without_network: bool
) -> dict[str, Any]:
    """Tasks and groups by name, as lm-eval's `TaskManager.load` returns them.

    Args:
        names: of lm-eval's tasks, groups and tags, or YAML files that define some.
        custom: our own tasks.
        data: folder with the rows of tasks; what is not in it comes from the Hugging Face hub or its local cache.
        fewshot: examples in every prompt; None: as the task says. A task that says 0 keeps 0, as in lm-eval.
        without_network: use local caches only.

    Raises UserError for an unknown task, and for data that is not available.
    """
    if not names and not custom:
        raise UserError("no task is named; mmlu and bbh are two, `lm-eval ls tasks` lists them all")
    if fewshot is not None and fewshot < 0:
        raise UserError(f"fewshot is {fewshot}; it can't be negative")
    local = LocalData(data) if data is not None else None
    manager = _manager(names) if names else None
    with ExitStack() as stack:
        specs: list[Any] = list(dict.fromkeys(names))
        if manager is not None:
            manager._factory = _Factory(local, fewshot, without_network, stack)
        loaded: dict[str, Any] = _load(manager, specs)
    own_groups: dict[str, Group] = {}
    for task in custom:
        if task.name in loaded["tasks"]:
            raise UserError(f"task {task.name} is named twice")
        built = loaded["tasks"][task.name] = task.build()
        if task.group is not None:
            shell = {"group": task.group, "aggregate_metric_list": [{"metric": task.metric, "weight_by_size": False}]}
            own_groups.setdefault(task.group, Group.from_config(GroupConfig(**shell))).add(built)
    loaded["groups"].update(own_groups)
    for name, task in loaded["tasks"].items():
        _settle(name, task, fewshot)
    return loaded


def _load(manager: Any, specs: list[Any]) -> dict[str, Any]:
    if manager is None:
        return {"tasks": {}, "groups": {}}
    try:
        loaded = manager.load(specs)
    except UserError:
        raise
    except Exception as problem:
        if isinstance(problem, ValueError) and "Duplicate task" in str(problem):
            raise UserError(f"{short_cause(problem)}; name one of the two") from None
        own = [spec for spec in specs if isinstance(spec, str) and Path(spec).is_file()]
        if not own:
            raise
        raise UserError(f"{own[0]}: lm-eval can't make a task of it ({type(problem).__name__}: {short_cause(problem)})") from None
    return {"tasks": dict(loaded["tasks"]), "groups": dict(loaded.get("groups") or {})}


def _settle(name: str, task: Any, fewshot: int | None) -> None:
    """Set the number of examples and their seed, as lm-eval's `simple_evaluate` does."""
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(f"task {name} runs code that the model writes; this program does not")
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"task {name} shows more than text; these models read text only")
    count = shots(vars(task.config), fewshot)
    available = getattr(getattr(task, "sampler", None), "df", None)
    if count and available is not None and len(available) < count:
        raise UserError(f"task {name} has {len(available)} examples for its prompts, fewer than {count}")
    task.set_config(key="num_fewshot", value=count)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def shots(config: Mapping[str, Any], asked: int | None) -> int:
    """Examples in the prompts of a task."""
    own = config.get("num_fewshot")
    if own == 0:
        return 0
    if asked is not None:
        return asked
    if own is not None:
        return int(own)
    return MMLU_SHOTS if config.get("dataset_path") in MMLU else 0


def _manager(names: Sequence[str]) -> Any:
    """A task manager that knows `names`.

    Reading all 14 000 definitions of lm-eval takes ten seconds, reading those of one folder a fraction of one. So the folders whose names
    begin the names of tasks are tried first.
    """
    if any(Path(name).is_file() for name in names):  # the user's own definitions may refer to any other
        return _indexed(None)
    folders = {str(definitions() / name.split("_")[0]) for name in names if "/" not in name}
    if all(Path(folder).is_dir() for folder in folders):
        manager = _indexed(tuple(sorted(folders)))
        if all(_complete(manager.task_index, name) for name in names):
            return manager
    unknown = undefined(names) or [name for name in names if name not in _indexed(None).task_index]
    if unknown:
        near = difflib.get_close_matches(unknown[0], defined_names(), n=3)
        hint = f"near it: {', '.join(near)}" if near else "`lm-eval ls tasks` lists them all"
        raise UserError(f"there is no task or group {unknown[0]}; {hint}")
    return _indexed(None)


@functools.lru_cache(maxsize=8)
def _indexed(folders: tuple[str, ...] | None) -> Any:
    """A manager of the tasks in some folders of lm-eval's; None: of all."""
    return TaskManager() if folders is None else TaskManager(include_defaults=False, include_path=list(folders))


def _complete(index: Mapping[str, Any], name: str) -> bool:
    """Whether a task or group is in the index with all that it consists of."""
    entry = index.get(name)
    if entry is None:
        return False
    if entry.kind == Kind.TAG:
        return all(_complete(index, one) for one in entry.tags)
    return entry.kind != Kind.GROUP or all(isinstance(one, str) and _complete(index, one) for one in entry.cfg.get("task") or [])


class _Factory(TaskFactory):
    """Builds lm-eval's tasks with rows from the user's folder, and says in one line why there are none."""

    def __init__(self, local: LocalData | None, fewshot: int | None, without_network: bool, stack: ExitStack) -> None:
        super().__init__()
        self.local, self.fewshot, self.stack = local, fewshot, stack
        self.rows: Splits | None = None
        """The user's, of the task that is being built."""
        self.network: str | None = None
        """Why the hub can't be asked; empty if it can; None if that is not known yet."""
        if without_network:
            self._without_network("offline")

    def _without_network(self, why: str) -> None:
        import datasets  # noqa: F401  # must be imported before it is told that it is offline

        self.network = why
        self.stack.enter_context(offline(True))

    def _load_full_config(self, entry: Entry, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
        except Exception as problem:
            raise UserError(f"task {entry.name} can't be read: {short_cause(problem)}") from problem
        if entry.kind == Kind.GROUP:
            return config
        check_json_files(config)
        self.rows = self.local.splits(config, shots(config, self.fewshot)) if self.local is not None else None
        if self.rows is not None:
            if "class" in config:
                raise UserError(f"task {entry.name} reads its data by itself, from the hub only; move its files out of {self._place}")
            config["custom_dataset"] = lambda rows=self.rows, **_: rows
        elif self.network is None and config.get("dataset_path") not in _LOCAL_FORMATS:
            try:
                require_hub(f"task {entry.name}")
                self.network = ""
            except UserError:
                self._without_network("the Hugging Face hub does not answer")
        return config

    def _build_task(self, entry: Entry, overrides: dict[str, Any] | None) -> "Task":
        try:
            task: Task = super()._build_task(entry, overrides)
        except UserError:
            raise
        except Exception as problem:
            raise self._missing(entry, overrides, problem) from problem
        if self.rows is not None:
            check_answers(task, self.rows)
        return task

    def _missing(self, entry: Entry, overrides: dict[str, Any] | None, problem: Exception) -> UserError:
        from datasets import config as places

        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        if self.rows is not None:  # its data set is here
            return row_error(ConfigurableTask, config, self.rows, problem)
        if not self.network or not config.get("dataset_path"):
            return UserError(f"task {entry.name} can't be set up: {short_cause(problem)}")
        name = "/".join(str(part) for part in (config["dataset_path"], config.get("dataset_name")) if part)
        looked = [f"in {self._place}"] if self.local is not None else []
        looked.append(f"in the cache {places.HF_DATASETS_CACHE}")
        return UserError(
            f"task {entry.name}: its data set {name} is not here: not {' and not '.join(looked)} ({self.network}); "
            f"run it once with the network, or give a folder `data` with {FORMS}"
        )

    @property
    def _place(self) -> Path | None:
        return self.local.folder if self.local is not None else None
