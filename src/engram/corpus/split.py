"""Which documents are training and which validation text: what belongs together stays together, and what stands in both is left out."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engram.corpus.near_duplicates import near_duplicates
from engram.corpus.shared_text import SharedText, shared_text
from engram.corpus.spool import Progress, Spool
from engram.errors import UserError

RULE = 2
"""Version of the split: other rules, or other numbers in them, give another fingerprint. 1: the hash of each document alone."""
MOST_LINES = 0.3
"""A validation document with this share of its lines in one training document is left out of the corpus."""
MOST_STRETCHES = 0.05
"""The same for its stretches of text that stand anywhere in training."""
_COMPONENTS = 32
"""Components that validation should have."""
_LARGEST = 1 / 8
"""Share of validation that one component may be."""
_FEWEST_KEPT = 1 / 4
"""Share of the validation documents that stays however much of them is in training: a corpus that repeats itself all over is still usable,
and says so."""


@dataclass(frozen=True)
class SplitFacts:
    """What `engramctl corpus` says of a split. The names are keys of meta.json."""

    near_duplicate_documents: int
    """Documents that have a near-duplicate."""
    near_duplicate_clusters: int
    train_components: int
    """Packages and near-duplicates that go to one side together, or documents that stand alone."""
    val_components: int
    train_packages: int | None
    """None where the source has none."""
    val_packages: int | None
    overlap_documents: int
    """Documents that were to be validation and are left out because of what they have in common with training."""
    overlap_bytes: int
    val_line_share: float
    """Largest share of a validation document's lines that one training document has."""


@dataclass(frozen=True)
class Split:
    """Numbers of documents in the spool."""

    train: list[int]
    """In the order of the source."""
    val: list[int]
    """In the order of their hashes, so that the first few are a random sample."""
    facts: SplitFacts

    def fingerprint(self, spool: Spool, val_fraction: float) -> str:
        """SHA-256 of the rule and of the documents of both sides in order, 64 hexadecimal digits."""
        whole = hashlib.sha256(f"split {RULE} {val_fraction!r}\n".encode())
        for numbers in (self.train, self.val):
            whole.update(f"{len(numbers)}\n".encode())
            for number in numbers:
                whole.update(spool.digests[number])
        return whole.hexdigest()


def split_documents(spool: Spool, val_fraction: float, report: Progress) -> Split:
    """Divide the documents; raises UserError when one side would be empty.

    Documents of a group, and near-duplicates, form components that are on one side whole. Components in the order of a hash are validation
    until `val_fraction` of the text is reached; what is large is training, so that validation has many. What validation then still has in
    common with training is left out.
    """
    pairs = near_duplicates(spool, report)
    clusters = connected(len(spool.digests), pairs)
    components = connected(len(spool.digests), np.concatenate([pairs, _group_pairs(spool.groups)]))
    chosen = _validation(spool, _members(components), val_fraction)
    train = [number for number in range(len(spool.digests)) if not chosen[number]]
    wanted = sorted(np.flatnonzero(chosen).tolist(), key=spool.digests.__getitem__)
    shared = shared_text(spool, train, wanted, report)
    stays = _stays(shared)
    val = [number for number, kept in zip(wanted, stays, strict=True) if kept]
    left_out = [number for number, kept in zip(wanted, stays, strict=True) if not kept]
    in_clusters = np.bincount(clusters)
    facts = SplitFacts(
        near_duplicate_documents=int(in_clusters[in_clusters > 1].sum()),
        near_duplicate_clusters=int((in_clusters > 1).sum()),
        train_components=len(np.unique(components[train])),
        val_components=len(np.unique(components[val])),
        train_packages=_packages(spool, train),
        val_packages=_packages(spool, val),
        overlap_documents=len(left_out),
        overlap_bytes=sum(map(spool.size, left_out)),
        val_line_share=float(shared.lines[stays].max()),
    )
    return Split(train, val, facts)


def connected(n: int, pairs: np.ndarray) -> np.ndarray:
    """Number of the connected component of each of `n` things, int64 [n], given pairs of things that are connected, int64 [m, 2]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels: np.ndarray = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def size_limit(components: np.ndarray, documents: np.ndarray, target: float) -> int:
    """Bytes of the largest component that may be validation.

    It is so large that drawing until the target is reached gives `_COMPONENTS` of them on average, and at most an eighth of the target.
    In a small corpus, where that would leave short texts alone, all may be drawn that are no larger than nine of ten documents are, or
    than half of the components.

    Args:
        components: bytes of each component, int64 [n].
        documents: bytes of each document, int64 [m].
        target: bytes that validation is to have.
    """
    ordered = np.sort(components)
    means = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    enough = int(np.searchsorted(means, target / _COMPONENTS, side="right"))  # the smallest ones, of which there would be enough
    limit = min(int(ordered[enough - 1]), int(target * _LARGEST)) if enough else 0
    usual = np.sort(documents)[(9 * len(documents) - 1) // 10]
    return max(limit, int(usual), int(ordered[(len(ordered) - 1) // 2]))


def _group_pairs(groups: Sequence[str | None]) -> np.ndarray:
    """Pairs that connect the documents of each group, int64 [n, 2]."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(group, number), number) for number, group in enumerate(groups) if group is not None]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _members(components: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(components, kind="stable")
    return np.split(order, np.cumsum(np.bincount(components))[:-1])


def _validation(spool: Spool, components: list[np.ndarray], val_fraction: float) -> np.ndarray:
    """Which documents are to be validation, bool [documents]."""
    if len(components) < 2:
        many = len(spool.digests) > 1
        counted = f"{len(spool.digests)} documents" if many else "one document"
        together = ": they are near-duplicates of one another, or one package" if many else ""
        raise UserError(f"the corpus has {counted} and nothing for validation{together}; take more documents")
    sizes = np.array([sum(map(spool.size, members)) for members in components], dtype=np.int64)
    target = val_fraction * float(sizes.sum())
    limit = size_limit(sizes, np.diff(spool.ends), target)
    # The hash of all its documents, not the smallest of their hashes: that would be smaller the more there are.
    hashes = [hashlib.sha256(b"".join(sorted(spool.digests[number] for number in members))).digest() for members in components]
    chosen = np.zeros(len(spool.digests), dtype=bool)
    taken = drawn = 0
    for component in sorted(range(len(components)), key=hashes.__getitem__):
        if drawn and (taken >= target or drawn == len(components) - 1):
            break
        if sizes[component] <= limit:
            chosen[components[component]] = True
            taken += int(sizes[component])
            drawn += 1
    return chosen


def _stays(shared: SharedText) -> np.ndarray:
    """Which validation documents stay, bool [n]: those below both limits, but never fewer than `_FEWEST_KEPT`, the least shared first."""
    excess = np.maximum(shared.lines / MOST_LINES, shared.stretches / MOST_STRETCHES)
    stays = excess < 1
    stays[np.argsort(excess, kind="stable")[: math.ceil(_FEWEST_KEPT * len(excess))]] = True
    return stays


def _packages(spool: Spool, numbers: Sequence[int]) -> int | None:
    if all(group is None for group in spool.groups):
        return None
    return len({spool.groups[number] for number in numbers})
