"""Gradients of table rows on a GPU, summed by row without asking how many rows there are."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_ROWS = 1 << 31


@dataclass
class RowSums:
    """The gradients of one set of tables in a step. Positions are those of all its reads, sorted by row; equal rows form a segment."""

    keys: Tensor
    """Row ids of several sets of tables in ascending order, int32."""
    start: int
    """Where this set begins among them."""
    base: int
    """What was added to its ids to keep the sets apart."""
    sums: Tensor
    """fp32 [n, r]: at the first position of every segment, the summed gradient of its row; elsewhere anything."""
    norms: Tensor
    """fp32 [...]: numbers that have the norm of all gradients of this set."""
    norm: Tensor
    """Norm of all gradients of the step, fp32 [...], of which the first number counts."""
    limit: float = math.inf
    """The update scales the gradients down so that the step's norm is not above it."""

    def clip(self, norm: Tensor, limit: float) -> None:
        """Have the update scale the gradients like those of a step with this norm, fp32 []."""
        self.norm, self.limit = norm, limit


def sums_by_row(reads: Sequence[tuple[Tensor, Tensor]], rows: Sequence[int]) -> list[RowSums]:
    """Sum gradients by row, for several sets of tables with one sort.

    Args:
        reads: of each set, the row ids int32 [n] of all its reads, n > 0, and their gradients fp32 or bf16 [n, r].
        rows: of each set, the number of rows.
    """
    if sum(rows) > _MOST_ROWS:
        return [one for each, count in zip(reads, rows, strict=True) for one in _sorted_sums([each], [0])]
    return _sorted_sums(reads, list(itertools.accumulate(rows[:-1], initial=0)))


def _sorted_sums(reads: Sequence[tuple[Tensor, Tensor]], bases: list[int]) -> list[RowSums]:
    from engram.kernels.gpu.segments import segment_sums, sort_ids

    ids = [ids for ids, _ in reads]
    segments = sort_ids(torch.cat(torch._foreach_add(ids, bases)) if len(ids) > 1 else ids[0])
    starts = itertools.accumulate((len(one) for one in ids[:-1]), initial=0)
    found = []
    for (_, grads), base, start in zip(reads, bases, starts, strict=True):
        sums = torch.empty(grads.shape, dtype=torch.float32, device=grads.device)
        norms = segment_sums(segments, grads, sums, start, with_norms=True)
        assert norms is not None
        found.append(RowSums(segments.keys, start, base, sums, norms, norms))
    return found
