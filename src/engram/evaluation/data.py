"""Rows of benchmarks from a folder of the user's, in their published forms, converted to what lm-eval's tasks expect."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.errors import FieldError, UserError
from engram.evaluation.local_rows import Splits, Table
from engram.foreign_files import parse_json, read_text

MMLU = frozenset({"cais/mmlu", "hails/mmlu_no_train"})
"""Names under which lm-eval's tasks look for it on the hub, as for `BBH` below."""
BBH = frozenset({"SaylorTwift/bbh", "lukaemon/bbh"})
_MMLU_FOLDERS = {"dev": "dev", "validation": "val", "test": "test"}
_MMLU_FIELDS = 6
_PATTERNS = (
    *("*.jsonl", "*/*.jsonl", "*/*/*.jsonl"),
    *("*.json", "*/*.json", "bbh/bbh/*.json"),
    *(f"{place}{name}/*.csv" for place in ("", "*/") for name in _MMLU_FOLDERS.values()),
)
"""Where in a folder `LocalData` finds files."""
FORMS = (
    "DIR/mmlu/{dev,val,test}/SUBJECT_{dev,val,test}.csv, DIR/bbh/TASK.json, or for any task DIR/NAME_SPLIT.jsonl or "
    "DIR/NAME/SPLIT.jsonl, where NAME is lm-eval's name of the task or of its configuration of a data set"
)


class LocalData:
    """A folder with data of tasks.

    Args:
        folder: as given by the user; files may be in it or in folders directly in it (`FORMS`).

    Raises FieldError when it is not a folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FieldError("data", f"{folder} is not a folder; it holds {FORMS}")
        self.folder = folder
        self.places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]

    def splits(self, config: Mapping[str, Any], shots: int) -> Splits | None:
        """The rows of a task, with a `datasets.Dataset` per split; None when the folder has nothing of it.

        Args:
            config: lm-eval's config of the task.
            shots: examples in its prompts; with any, their split must be there.

        Raises UserError when a file that is needed is missing or wrong.
        """
        task, name = str(config["task"]), config.get("dataset_name")
        wanted = _splits(config)
        evaluated = config.get("test_split") or config.get("validation_split")
        find = self._json_lines(task, wanted)
        if find is None and config.get("dataset_path") in MMLU:
            find = self._mmlu(str(name))
        if find is None and config.get("dataset_path") in BBH:
            find = self._bbh(str(name), config)
        if find is None and name:
            find = self._json_lines(str(name), wanted)
        if find is None or evaluated is None:
            return None
        examples = _fewshot_split(config) if shots else None
        found: dict[str, Table] = {}
        for split in wanted:
            file, read = find(split)
            if file is not None and file.is_file():
                found[split] = read(file)
            elif split in (evaluated, examples):
                use = "its questions" if split == evaluated else f"its {shots} examples"
                raise UserError(f"task {task}: {use} need {file or f'split {split}'}, which is not there")
        return Splits(found, wanted, evaluated, examples, config)

    def _json_lines(self, name: str, wanted: Sequence[str]) -> "_Find | None":
        if "/" in name:
            return None
        found: list[tuple[Path, _Find]] = []
        for place in self.places:
            for start in (place / f"{name}_", place / name / "_"):

                def find(split: str, start: Path = start) -> tuple[Path, "_Read"]:
                    return start.with_name(f"{start.name.removeprefix('_')}{split}.jsonl"), _read_json_lines

                found += [(find(split)[0], find) for split in wanted if find(split)[0].is_file()][:1]
        if len(found) > 1:
            raise UserError(f"the rows of {name} are in {found[0][0]} and in {found[1][0]}; keep one of the two")
        return found[0][1] if found else None

    def _mmlu(self, subject: str) -> "_Find | None":
        for place in (self.folder / "mmlu", self.folder, *self.places[1:]):
            if any((place / name).is_dir() and any((place / name).glob(f"*_{name}.csv")) for name in _MMLU_FOLDERS.values()):

                def find(split: str, place: Path = place) -> tuple[Path | None, "_Read"]:
                    name = _MMLU_FOLDERS.get(split)
                    return (place / name / f"{subject}_{name}.csv" if name else None), lambda file: _read_mmlu(file, subject)

                return find
        return None

    def _bbh(self, name: str, config: Mapping[str, Any]) -> "_Find | None":
        for place in (self.folder / "bbh" / "bbh", self.folder / "bbh", self.folder, *self.places[1:]):
            file = place / f"{name}.json"
            if file.is_file():
                for prompts in (place / "cot-prompts", place.parent / "cot-prompts"):
                    if (prompts / f"{name}.txt").is_file():
                        check_cot_prompt(prompts / f"{name}.txt", config)
                return lambda _split: (file, _read_bbh)
        return None


def data_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted, that scores may depend on: all that are of a form of `FORMS`, whichever task reads them."""
    found = [file for pattern in _PATTERNS for file in folder.glob(pattern) if file.is_file()]
    return sorted(set(found))


_Read = Callable[[Path], Table]
_Find = Callable[[str], tuple[Path | None, _Read]]
"""From a split to its file, None if there can't be one, and the function that reads it."""


def _splits(config: Mapping[str, Any]) -> list[str]:
    names = [config.get(f"{kind}_split") for kind in ("test", "validation", "training", "fewshot")]
    example_split = (config.get("fewshot_config") or {}).get("split")
    return list(dict.fromkeys(name for name in (*names, example_split) if name))


def _fewshot_split(config: Mapping[str, Any]) -> str | None:
    """Where lm-eval takes examples from (`ConfigurableTask.fewshot_docs`); None: from the task's own definition."""
    examples = config.get("fewshot_config") or {}
    if split := examples.get("split") or config.get("fewshot_split"):
        return str(split)
    if examples.get("samples") is not None:
        return None
    return config.get("training_split") or config.get("validation_split") or config.get("test_split")


def _read_mmlu(file: Path, subject: str) -> Table:
    rows = []
    try:
        with _opened(file) as lines:
            for number, fields in enumerate(csv.reader(lines), 1):
                if len(fields) != _MMLU_FIELDS or fields[5].strip() not in tuple("ABCD"):
                    raise UserError(f"{file}: row {number} is not question, A, B, C, D and the letter of the answer")
                question, *choices, letter = fields
                rows.append({"question": question, "subject": subject, "choices": choices, "answer": "ABCD".index(letter.strip())})
    except csv.Error as problem:
        raise UserError(f"{file} is not CSV: {problem}") from None
    return _table(file, rows, range(1, len(rows) + 1), "row")


def _read_bbh(file: Path) -> Table:
    with _opened(file) as lines:
        try:
            content = parse_json(lines.read())
            rows = [{"input": str(one["input"]), "target": str(one["target"])} for one in content["examples"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UserError(f"{file} is not a BIG-Bench Hard file: JSON with `examples`, each with `input` and `target`") from None
    return _table(file, rows, range(1, len(rows) + 1), "example")


def _read_json_lines(file: Path) -> Table:
    rows, numbers = [], []
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except (json.JSONDecodeError, RecursionError):
                row = None
            except ValueError as problem:
                raise UserError(f"{file}: line {number}: {str(problem).partition(';')[0]}") from None
            if not isinstance(row, dict):
                raise UserError(f"{file}: line {number} is not a JSON object")
            rows.append(row)
            numbers.append(number)
    return _table(file, rows, numbers, "line")


def _opened(file: Path) -> Any:
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{file} can't be read: {getattr(problem, 'strerror', None) or 'it is not UTF-8'}") from None
    return io.StringIO(text, newline="")


def _table(file: Path, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], unit: str) -> Table:
    if not rows:
        raise UserError(f"{file} is empty")
    return Table(file, rows, numbers, unit)


def check_cot_prompt(file: Path, config: Mapping[str, Any]) -> None:
    """Check that a `cot-prompts` file has the same examples, up to white space, as those built into lm-eval's task, which are used.

    (In `sports_understanding` lm-eval has line breaks where the file has spaces.) Raises UserError when they differ; a task without
    built-in examples of this kind is not checked.
    """
    examples = (config.get("fewshot_config") or {}).get("samples")
    if not isinstance(examples, Sequence) or "step by step" not in str(config.get("doc_to_text")):
        return
    with _opened(file) as lines:
        _canary, _, prompt = lines.read().partition("\n-----\n")
    shown = "".join(f"Q: {one['input']}\nA: Let's think step by step.\n{one['target']}\n\n" for one in examples)
    if prompt.split() != (str(config.get("description") or "") + shown).split():
        raise UserError(f"{file} has other examples than lm-eval's task {config['task']}, which always uses its own; remove the file")
