"""The files that a task defined by the user consists of."""

import glob
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from engram.errors import UserError
from engram.foreign_files import read_text

_MAX_DEPTH = 20
_OWN = Path(__file__).parents[1]
_ASKING = {Path(__file__), Path(__file__).with_name("run.py")}
"""Where lm-eval is called."""


class _Loader(yaml.SafeLoader):
    """Reads `!function module.name` as the name of a function."""


class _Function(str):
    """A function's name as written after `!function`."""


def _function(_loader: yaml.SafeLoader, node: yaml.Node) -> _Function:
    return _Function(str(node.value))


_Loader.add_constructor("!function", _function)


def task_files(file: Path) -> list[Path]:
    """A task's YAML file, the files that it includes, the Python files beside them if it has functions, and local files of its data.

    They come in an order that does not depend on where they are. What is not there is left out. Raises UserError when a YAML file can't be
    read.
    """
    found: list[Path] = []
    _collect(file, found, 0)
    return list(dict.fromkeys(found))


def task_label(file: Path) -> str:
    """The name that a task's YAML file gives the task or group; that of the file if there is none."""
    content = _read(file)
    names = [content.get("task"), content.get("group")]
    return next((name for name in names if isinstance(name, str)), file.stem)


@contextmanager
def mistakes_of_tasks(names: Sequence[str]) -> Iterator[None]:
    """UserError, which names them, for what goes wrong in lm-eval while tasks from YAML files are asked: a template, a function, a field.

    An error in which our own code has a part is no mistake of a task and stays what it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as problem:
        files = [name for name in names if Path(name).is_file()]
        called = {Path(frame.filename) for frame in traceback.extract_tb(problem.__traceback__)} - _ASKING
        if not files or any(place.is_relative_to(_OWN) for place in called):
            raise
        why = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
        raise UserError(f"{', '.join(files)} can't be scored: {' '.join(why.split())[:200]}") from problem


def _collect(file: Path, found: list[Path], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise UserError(f"{file} includes itself")
    found.append(file)
    content = _read(file)
    if _has_function(content):
        found.extend(sorted(file.parent.glob("*.py")))
    includes = content.get("include") or []
    for one in includes if isinstance(includes, list) else [includes]:
        included = file.parent / str(one)
        if included.is_file():
            _collect(included, found, depth + 1)
    _collect_data([content.get("dataset_path"), content.get("dataset_kwargs")], found)
    for one in content.get("task") or [] if isinstance(content.get("task"), list) else []:
        if isinstance(one, dict):
            _collect_data([one.get("dataset_path"), one.get("dataset_kwargs")], found)


def _collect_data(value: Any, found: list[Path]) -> None:
    """Add the files and folders that strings in `value` name, patterns too."""
    for one in _scalars(value):
        if isinstance(one, str) and one:
            found.extend(Path(name) for name in sorted(glob.glob(one, recursive=True)))


def _has_function(value: Any) -> bool:
    return any(isinstance(one, _Function) for one in _scalars(value))


def _scalars(value: Any) -> Iterator[Any]:
    """What is inside mappings and lists, in order; what YAML's aliases name again comes once, or it might never end."""
    left, seen = [value], set()
    while left:
        one = left.pop()
        if not isinstance(one, dict | list):
            yield one
        elif id(one) not in seen:
            seen.add(id(one))
            left.extend(reversed(list(one.values()) if isinstance(one, dict) else one))


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(read_text(file), Loader=_Loader)  # a safe loader
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{file} can't be read: {getattr(problem, 'strerror', None) or 'it is not UTF-8'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise UserError(f"{file} is not YAML: {' '.join(str(problem).split())[:200]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} does not define a task: it is not a mapping")
    return content
