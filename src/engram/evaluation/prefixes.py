"""Which beginnings of token sequences to compute once for several sequences."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

GROUP_COST = 32
"""Tokens that one shared beginning has to save before it is worth passes of its own."""


@dataclass(frozen=True)
class Group:
    """Sequences whose first `prefix` tokens are the same and are computed once; 0: a sequence by itself."""

    prefix: int
    rows: tuple[int, ...]


def distinct(sequences: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Sequences that begin no other one, and for each of `sequences` the one among them that it begins.

    A model that reads left to right gives the same numbers for a sequence alone and as the beginning of a longer one.
    """
    order = sorted(range(len(sequences)), key=lambda i: _sort_key(sequences[i]))
    rows: list[np.ndarray] = []
    row_of = [0] * len(sequences)
    for i in reversed(order):  # what begins a sequence comes right before it or before others that it begins
        if not rows or _common(sequences[i], rows[-1]) < len(sequences[i]):
            rows.append(sequences[i])
        row_of[i] = len(rows) - 1
    return rows, row_of


def shared_prefixes(rows: Sequence[np.ndarray], limits: Sequence[int]) -> list[Group]:
    """Groups of sequences such that the model sees few tokens when each group's common beginning is computed once.

    Every sequence is in one group. A group's prefix is no longer than what any two of its sequences have in common and than
    the smallest of their `limits`. Groups don't nest: where questions of 57 subjects come after the examples of each, the examples
    are shared, and not the sentence with which all begin. No grouping is better where limits don't cut a common beginning short.

    Args:
        rows: token ids, int [length] each.
        limits: for each row, most of its tokens that may be left to a shared beginning.
    """
    order = sorted(range(len(rows)), key=lambda i: _sort_key(rows[i]))
    # The tree of common prefixes (an LCP-interval tree): a node for every beginning at which sorted sequences part.
    open_nodes = [_Node(0)]
    for place, i in enumerate(order):
        node = _Node(len(rows[i]), rows=[i], tokens=len(rows[i]), limit=limits[i], cost=len(rows[i]))
        after = _common(rows[i], rows[order[place + 1]]) if place + 1 < len(order) else 0
        while open_nodes[-1].depth > after:
            open_nodes[-1].add(node)
            node = open_nodes.pop()
            node.close()
        if open_nodes[-1].depth < after:
            open_nodes.append(_Node(after))
        open_nodes[-1].add(node)
    return list(open_nodes[0].groups())


@dataclass
class _Node:
    """All sequences with one common beginning."""

    depth: int
    """Tokens of the beginning."""
    rows: list[int] = field(default_factory=list)
    tokens: int = 0
    """Of all sequences."""
    limit: int = 2**62
    """Smallest of the limits."""
    cost: int = 0
    """Tokens that the model sees, with the best grouping."""
    children: list["_Node"] = field(default_factory=list)
    prefix: int = 0
    """Tokens shared by all here; 0: the children are better off by themselves."""

    def add(self, child: "_Node") -> None:
        self.children.append(child)
        self.rows += child.rows
        self.tokens += child.tokens
        self.limit = min(self.limit, child.limit)
        self.cost += child.cost

    def close(self) -> None:
        """Decide, once all children are there, whether to share the beginning here."""
        prefix = min(self.depth, self.limit)
        together = self.tokens - (len(self.rows) - 1) * prefix + GROUP_COST
        if prefix and together < self.cost:
            self.prefix, self.cost = prefix, together
            self.children = []  # needed no more: a group has no groups in it

    def groups(self) -> list[Group]:
        found, waiting = [], [self]
        while waiting:  # no recursion: a tree of N sequences can be N deep
            node = waiting.pop()
            if node.prefix or (not node.children and node.rows):
                found.append(Group(node.prefix, tuple(node.rows)))
            waiting.extend(node.children)
        return found


def _sort_key(row: np.ndarray) -> bytes:
    """Bytes that sort as the token ids do, without comparing them one by one in Python."""
    return row.astype(">u4").tobytes()


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Tokens with which both begin."""
    length = min(len(a), len(b))
    differ = a[:length] != b[:length]
    return int(differ.argmax()) if differ.any() else length
