"""YAML as people write it in sweep files, `--set` and `--axis`: what can't be meant is refused, before it takes memory or time.

Values have the types of YAML 1.1, but numbers of base 8 and 60 are refused.
Keys are text as written (`on:` is "on", `1e3:` is "1e3"), and none may stand twice in a mapping.
"""

import re
from collections.abc import Collection, Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from engram.errors import UserError
from engramctl.sweep.limits import MAX_DEPTH, MAX_EXPANDED, MAX_NUMBER

_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_OTHER_BASE = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+:[0-9_:.]+)")
"""What YAML 1.1 reads in base 8 (010 is 8) or 60 (1:30 is 90), which hardly anybody means."""
_HALF = re.compile(r"[\ud800-\udfff]")
"""Half of a character that JSON writes as two escapes: "\\ud83d\\ude00"."""


def read_yaml(text: str, where: str, as_text: Collection[str] = ()) -> Any:
    """The value that a YAML text stands for.

    Args:
        text: the YAML.
        where: what the text is, for messages.
        as_text: dotted paths of keys below which every value is text as written, whatever it looks like.

    Raises UserError that names `where` and, in a text of several lines, the line.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node, {}, set())
            _keep_text(node, (), frozenset(as_text))
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        raise UserError(f"{where}{_line(text, mark.index if mark else None)}: not valid YAML: {problem.problem}") from None
    except yaml.reader.ReaderError as problem:
        character = f"the character {chr(problem.character)!a} is not allowed" if isinstance(problem.character, int) else problem.reason
        raise UserError(f"{where}{_line(text, problem.position)}: not valid YAML: {character}") from None


def shortened(text: str, most: int = 60) -> str:
    """A text for a message: its beginning, if it is long."""
    return text if len(text) <= most else f"{text[:most]}..."


def _line(text: str, index: int | None) -> str:
    return "" if index is None or "\n" not in text else f", line {text.count(chr(10), 0, index) + 1}"


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConstructorError(None, None, f"more than {MAX_DEPTH} levels inside each other", self.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER:
            raise ConstructorError(None, None, f"a number of more than {MAX_NUMBER} characters", node.start_mark)
        if node.tag in _NUMBERS and _OTHER_BASE.fullmatch(node.value):
            problem = f"{node.value} is a number of base 8 or 60 in YAML; write it without leading zeros and colons, or in quotes"
            raise ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            # PyYAML's constructors take it that a value fits its tag: a date such as 2001-02-31 doesn't.
            what = (
                f"{shortened(node.value)!r} is no value of the kind"
                if isinstance(node, yaml.ScalarNode)
                else "this is no value of the kind"
            )
            raise ConstructorError(None, None, f"{what} {node.tag.rpartition(':')[2]}", node.start_mark) from None


def _check_keys(node: yaml.MappingNode) -> None:
    """Make the keys text; ConstructorError where one is no text or stands twice."""
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConstructorError(None, None, "a key must be text", key.start_mark)
        if key.tag != _MERGE:
            key.tag = _TEXT
        if key.value in seen:
            problem = f"the key {shortened(key.value)!r} stands twice, first in line {seen[key.value]}"
            raise ConstructorError(None, None, problem, key.start_mark)
        seen[key.value] = key.start_mark.line + 1


def _join_halves(node: yaml.ScalarNode) -> None:
    """Put characters together that were written as two escapes, which PyYAML leaves apart; ConstructorError for half a character."""
    if _HALF.search(node.value):
        try:
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise ConstructorError(None, None, "an escape that is half a character", node.start_mark) from None


def _check_size(node: yaml.Node, sizes: dict[int, int], above: set[int]) -> int:
    """Characters and values below a node, those of aliases as often as they are named; ConstructorError when they are too many."""
    if id(node) in above:
        raise ConstructorError(None, None, "an alias inside what it stands for", node.start_mark)
    if id(node) not in sizes:
        if isinstance(node, yaml.ScalarNode):
            _join_halves(node)
            size = 1 + len(node.value)
        else:
            inner = [n for pair in node.value for n in pair] if isinstance(node, yaml.MappingNode) else node.value
            size = 1 + sum(_check_size(one, sizes, above | {id(node)}) for one in inner)
        if size > MAX_EXPANDED:
            raise ConstructorError(None, None, f"aliases that stand for more than {MAX_EXPANDED:,} characters", node.start_mark)
        sizes[id(node)] = size
    return sizes[id(node)]


def _keep_text(node: yaml.Node, path: tuple[str, ...], wanted: frozenset[str]) -> None:
    """Mark the values below the wanted paths as text."""
    if not wanted or not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        inner = (*path, key.value) if isinstance(key, yaml.ScalarNode) else path
        if ".".join(inner) in wanted:
            for one in [value, *(value.value if isinstance(value, yaml.SequenceNode) else [])]:
                if isinstance(one, yaml.ScalarNode) and (one is not value or one.value not in ("", "~", "null")):
                    one.tag = _TEXT
        elif any(name.startswith(".".join(inner) + ".") for name in wanted):
            _keep_text(value, inner, wanted)
