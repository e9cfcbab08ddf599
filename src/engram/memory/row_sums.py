"""Gradients of table rows on a GPU, summed by row without asking how many rows there are."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from engram.kernels.gpu.row_sums import RowSums

_MOST_ROWS = 1 << 31


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
