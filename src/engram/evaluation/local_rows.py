"""Rows of a user's files as the data sets that lm-eval's tasks read, and whether every row has an answer."""

import functools
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.errors import UserError
from engram.tokenizer.hub import short_cause


@dataclass(frozen=True)
class Table:
    """Rows of one file."""

    file: Path
    rows: Sequence[Mapping[str, Any]]
    numbers: Sequence[int]
    """Where each row is in the file, counted from 1."""
    unit: str
    """What is counted: `line`, `row` or `example`."""

    def place(self, index: int) -> str:
        """Where a row is, for a person."""
        return f"{self.file}: {self.unit} {self.numbers[index]}"


class Splits(dict[str, Any]):
    """A `datasets.Dataset` for each split of a task, and the tables that they were made of."""

    def __init__(
        self, tables: Mapping[str, Table], wanted: Iterable[str], evaluated: str, examples: str | None, config: Mapping[str, Any]
    ) -> None:
        """A split without a file, which nothing needs, is empty and has the columns of `evaluated`."""
        filled = {split: _dataset(table, config) for split, table in tables.items()}
        super().__init__({split: filled.get(split, filled[evaluated].select([])) for split in wanted})
        self.tables, self.evaluated, self.examples = tables, evaluated, examples


def _dataset(table: Table, config: Mapping[str, Any]) -> Any:
    """A data set with every key that any row has; a row without it has None there.

    A column whose values have no common type can't be in it. It is left out if the task does not read it; otherwise UserError names a row.
    """
    import datasets

    keys = dict.fromkeys(key for row in table.rows for key in row)
    columns = {}
    for key in keys:
        values = [row.get(key) for row in table.rows]
        if (wrong := _first_of_another_type(values)) is None:
            columns[key] = values
        elif _reads(config, key):
            raise UserError(f"{table.place(wrong)}: {key!r} is {_shown(values[wrong])}, which is of another type than in the rows before")
    if not columns:
        raise UserError(f"{table.file} has no column that task {config.get('task')} can read")
    return datasets.Dataset.from_dict(columns)


def _first_of_another_type(values: Sequence[Any]) -> int | None:
    """Index of the first value that has no type in common with those before it; None if there is none."""
    if _one_type(values):
        return None
    good, bad = 0, len(values)  # the longest beginning that has one type, and the shortest that hasn't
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _one_type(values[:middle]) else (good, middle)
    return bad - 1


def _one_type(values: Sequence[Any]) -> bool:
    import pyarrow as pa

    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False
    return True


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _reads(config: Mapping[str, Any], column: str) -> bool:
    """Whether a task may read a column: its templates name it, or the Python file of one of its functions does."""
    return any(_names(value, column) for key, value in config.items() if key not in ("task", "tag", "group", "metadata"))


def _names(value: Any, column: str) -> bool:
    if isinstance(value, str):
        return value == column or ("{" in value and re.search(rf"(?<!\w){re.escape(column)}(?!\w)", value) is not None)
    if isinstance(value, Mapping):
        return any(_names(one, column) for one in value.values())
    if isinstance(value, Sequence):
        return any(_names(one, column) for one in value)
    return callable(value) and re.search(rf"""["'{{.]{re.escape(column)}\b""", _source(value)) is not None


def _source(function: Any) -> str:
    try:
        return Path(inspect.getsourcefile(inspect.unwrap(function)) or "").read_text(encoding="utf-8")
    except (OSError, TypeError, UnicodeDecodeError):
        return ""


def check_answers(task: Any, splits: Splits) -> None:
    """Raise UserError with file and row for the first row without an answer that the task, lm-eval's, can use."""
    with _templates_compiled_once():
        _check(task, task.task_docs, splits.tables[splits.evaluated])
        if splits.examples not in (None, splits.evaluated) and splits.examples in splits.tables:
            _check(task, task.fewshot_docs(), splits.tables[splits.examples])


@contextmanager
def _templates_compiled_once() -> Iterator[None]:
    """lm-eval compiles a template anew for every row, which takes far longer than filling it in."""
    from lm_eval.utils import env

    vars(env)["from_string"] = functools.lru_cache(env.from_string)
    try:
        yield
    finally:
        del vars(env)["from_string"]


def _check(task: Any, documents: Sequence[Mapping[str, Any]], table: Table) -> None:
    in_order = len(documents) == len(table.rows)  # a task may leave rows out
    for index, document in enumerate(documents):
        if (reason := _without_answer(task, document)) is not None:
            place = table.place(index) if in_order else f"{table.file}: question {index + 1} of task {task.config.task}"
            raise UserError(f"{place} has no answer that task {task.config.task} can use: {reason}")


def _without_answer(task: Any, document: Mapping[str, Any]) -> str | None:
    """Why the task can't tell the right answer; None if it can."""
    kind, template = task.config.output_type, task.config.doc_to_target
    try:
        answer = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
        choices = task.doc_to_choice(document) if kind == "multiple_choice" else None
    except Exception as problem:  # whatever the task's templates and functions raise
        return short_cause(problem)
    if callable(task.config.process_results):  # it scores in a way of its own, and may need no answer of this form
        return None
    if choices is not None:
        for one in answer if isinstance(answer, list) else [answer]:
            right = 0 <= one < len(choices) if isinstance(one, int) else one in choices
            if not right:
                return f"{_shown(one)} is none of its {len(choices)} choices"
        return None if answer != [] else "it has none"
    if answer is None or answer == []:
        return "it has none"
    nothing = [key for key, value in document.items() if value is None and isinstance(template, str) and _names(template, key)]
    return f"its {nothing[0]!r} is empty" if nothing and "None" in str(answer) else None


def row_error(build: Any, config: Mapping[str, Any], splits: Splits, problem: Exception) -> UserError:
    """The error for a task that can't be built of `splits`; it names the first row of which alone the task can't be built.

    Args:
        build: lm-eval's class of tasks.
        config: of the task.
        splits: of the user's files.
        problem: why it can't be built.
    """
    table, whole = splits.tables[splits.evaluated], splits[splits.evaluated]
    config = {key: value for key, value in config.items() if key not in ("tag", "group", "task_list")}
    for index in range(len(whole)):
        rows = {**splits, splits.evaluated: whole.select([index])}
        try:
            build(config={**config, "custom_dataset": lambda rows=rows, **_: rows})
        except Exception as cause:
            return UserError(f"{table.place(index)} can't be used by task {config['task']}: {short_cause(cause)}")
    return UserError(f"{table.file} can't be used by task {config['task']}: {short_cause(problem)}")
