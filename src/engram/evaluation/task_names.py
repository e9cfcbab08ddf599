"""Names of lm-eval's tasks and groups, found in the text of their definitions: searching that is quick, parsing it is not."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_NAME = re.compile(r"""^["']?(?:task|group)["']?:[ \t]*["']?([\w.:+-]+)["']?[ \t]*$""", re.MULTILINE)


def definitions() -> Path:
    """The folder of all definitions."""
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks"


def undefined(names: Sequence[str]) -> list[str]:
    """Names that appear in no definition."""
    left = dict.fromkeys(names)
    for text in _texts():
        for name in [name for name in left if name in text]:
            del left[name]
        if not left:
            break
    return list(left)


def defined_names() -> list[str]:
    """The names of nearly all tasks and groups."""
    return sorted({name for text in _texts() for name in _NAME.findall(text)})


def _texts() -> Iterator[str]:
    """The text of all definitions; those that others include have names without a suffix."""
    files = (file for file in definitions().glob("**/*") if file.suffix in ("", ".yaml") and file.is_file())
    return (file.read_text(encoding="utf-8", errors="replace") for file in files)
