"""JSON files that a task's YAML names as its data, looked at before `datasets` reads them.

The reader of `datasets` ends the process (pyarrow 26) at a first line that is JSON but no object, such as `null`.
"""

import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engram.errors import UserError
from engram.foreign_files import read_text


def check_json_files(config: Mapping[str, Any]) -> None:
    """UserError when a local file of a task with `dataset_path: json` is neither JSON lines of objects nor one JSON value that has them.

    Files that are not there, are on a server or compressed are left to `datasets`, which names them.
    """
    if config.get("dataset_path") != "json":
        return
    settings = config.get("dataset_kwargs")
    for file in _files(settings.get("data_files") if isinstance(settings, Mapping) else None):
        try:
            text = read_text(file)
        except UnicodeDecodeError:  # compressed
            continue
        except OSError as problem:
            raise UserError(f"{file} can't be read: {problem.strerror or problem}") from None
        if (wrong := _first_other(text)) is not None and not _is_one_value(text):
            raise UserError(f"{file}: line {wrong} is not a JSON object")


def _files(value: Any) -> Iterator[Path]:
    if isinstance(value, str):
        yield from (path for name in sorted(glob.glob(value)) if (path := Path(name)).is_file())
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _files(one)


def _first_other(text: str) -> int | None:
    """Number of the first line that holds something else than an object."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not isinstance(_value(line), dict):
            return number
    return None


def _is_one_value(text: str) -> bool:
    """Whether the text is an object, or a list of objects."""
    value = _value(text)
    return isinstance(value, dict) or (isinstance(value, list) and all(isinstance(one, dict) for one in value))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
