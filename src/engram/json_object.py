"""JSON objects of others: one in which a key stands twice has no single meaning and is refused."""

import json
from collections import Counter
from typing import Any


def read_json(text: str) -> Any:
    """The value of a JSON text. ValueError, or RecursionError, when it is none; also when an object in it has a key twice."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return found
