"""Decides which beginnings of token sequences to compute once for several sequences."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

GROUP_COST = 32
"""Tokens that a shared beginning must save to be worth a pass of its own."""


@dataclass(frozen=True)
class Group:
    """Sequences whose first `prefix` tokens are the same and are computed once; 0 for a sequence by itself."""

    prefix: int
    rows: tuple[int, ...]


def distinct(sequences: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """The sequences that are no beginning of another, and for each of `sequences` the number of the one among them that it begins.

    A model that reads left to right gives the same numbers for a sequence on its own and as the beginning of a longer one.
    """
    order = sorted(range(len(sequences)), key=lambda i: _sort_key(sequences[i]))
    rows: list[np.ndarray] = []
    row_of = [0] * len(sequences)
    for i in reversed(order):  # a beginning is sorted right before its sequence, or before others that it begins
        if not rows or _common(sequences[i], rows[-1]) < len(sequences[i]):
            rows.append(sequences[i])
        row_of[i] = len(rows) - 1
    return rows, row_of


def shared_prefixes(rows: Sequence[np.ndarray], limits: Sequence[int]) -> list[Group]:
    """Groups of sequences that minimise the tokens that the model sees if each group's common beginning is computed once.

    Every sequence is in exactly one group. A group's prefix is no longer than what all of its sequences have in common, nor than the
    smallest of their `limits`. Groups don't nest: if questions on 57 subjects follow each subject's examples, the examples are shared, and
    not the sentence with which all prompts begin. No grouping is better unless limits cut a common beginning short.

    Args:
        rows: token ids, int [length] each.
        limits: for each row, most of its tokens that may be in a shared beginning.
    """
    order = sorted(range(len(rows)), key=lambda i: _sort_key(rows[i]))
    # The tree of common prefixes (an LCP-interval tree): a node for every beginning after which sorted sequences differ.
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
    """All sequences with a common beginning."""

    depth: int
    """Length of the beginning in tokens."""
    rows: list[int] = field(default_factory=list)
    tokens: int = 0
    """Tokens of all its sequences."""
    limit: int = 2**62
    """Smallest of their limits."""
    cost: int = 0
    """Tokens that the model sees with the best grouping."""
    children: list["_Node"] = field(default_factory=list)
    prefix: int = 0
    """Tokens shared by all sequences here; 0 if the children are better off by themselves."""

    def add(self, child: "_Node") -> None:
        self.children.append(child)
        self.rows += child.rows
        self.tokens += child.tokens
        self.limit = min(self.limit, child.limit)
        self.cost += child.cost

    def close(self) -> None:
        """Decide, once all children have been added, whether to share the beginning here."""
        prefix = min(self.depth, self.limit)
        together = self.tokens - (len(self.rows) - 1) * prefix + GROUP_COST
        if prefix and together < self.cost:
            self.prefix, self.cost = prefix, together
            self.children = []  # no longer needed: groups don't nest

    def groups(self) -> list[Group]:
        found, waiting = [], [self]
        while waiting:  # not recursive: a tree of N sequences can be N deep
            node = waiting.pop()
            if node.prefix or (not node.children and node.rows):
                found.append(Group(node.prefix, tuple(node.rows)))
            waiting.extend(node.children)
        return found


def _sort_key(row: np.ndarray) -> bytes:
    """Bytes that sort like the token ids, so that Python need not compare these one by one."""
    return row.astype(">u4").tobytes()


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Number of tokens with which both begin."""
    length = min(len(a), len(b))
    differ = a[:length] != b[:length]
    return int(differ.argmax()) if differ.any() else length
