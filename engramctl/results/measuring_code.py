"""The code behind a number, by content: what could change the number if it were changed.

There is no version to be raised by hand, which somebody would forget. Comments, docstrings, layout and the words of errors don't count.
Versions of PyTorch and the like don't either: they change the rounding alone, as another machine does.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engram
from engramctl.results.fingerprints import identity

_ROOTS = {"engram": Path(engram.__file__).parent, "engramctl": Path(__file__).parents[1]}
_COMPILED = "engram.kernels.build"
"""The module that stands for what is compiled."""


@functools.cache
def measuring_code(*modules: str) -> str:
    """What stands for some modules and all modules of the library that they import, in functions too.

    Args:
        modules: dotted names in `engram` or `engramctl`. Of those that they import, only the library's count: the rest plans and shows.
    """
    found: dict[str, Any] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in found or file is None or name == "engram":  # its `__init__` names the whole library
            continue
        tree = ast.parse(file.read_bytes())
        found[name] = hashlib.sha256(json.dumps(_form(tree)).encode()).hexdigest()
        if name == _COMPILED:
            found |= {source.name: source for source in sorted(file.parent.glob("*/*.*")) if source.suffix in (".cpp", ".h")}
        waiting += [other for other in _imports(tree) if other.partition(".")[0] == "engram"]
    return identity("code", found)


def _file(name: str) -> Path | None:
    root, *parts = name.split(".")
    place = _ROOTS[root].joinpath(*parts)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield from _imports(node)


def _form(node: Any) -> Any:
    """A syntax tree as lists and text, the same for every version of Python: empty fields, which differ, are left out."""
    if isinstance(node, list):
        return [_form(one) for one in node if not _is_docstring(one)]
    if isinstance(node, ast.Raise):
        return ["Raise"]
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
        return [type(node).__name__, {name: _form(value) for name, value in fields.items()}]
    return repr(node)


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
