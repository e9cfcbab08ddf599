"""How the tables are used: do they have too little room for the N-grams of the text, or too much? (paper, 2.2, 2.5)"""

from dataclasses import dataclass

import numpy as np

from engram.analysis.ngram_counts import Occurrences, checked_lookup, training_mixes
from engram.analysis.split import check_corpus
from engram.corpus.dataset import Corpus
from engram.corpus.spool import Progress
from engram.memory.lookup import MemoryLookup
from engram.training.checkpoints.restore import Restored

HOTTEST = 0.01
"""Share of the rows that count as the hottest."""
_ZIPF_POINTS = 100


@dataclass(frozen=True, eq=False)
class HeadUse:
    """Use of one head's table over the training split, read once."""

    table_set: int
    """Number of the set of tables; most designs have one per memory layer, in order."""
    order: int
    head: int
    """Number of the head within its order, from 0."""
    rows: int
    rows_touched: int
    """Rows that are read at least once."""
    distinct_ngrams: int
    """N-grams of the order in the text."""
    ngrams_per_row: float
    """Mean over the rows touched; 1 if no two N-grams of the text share a row."""
    shared_reads: float
    """Share of the reads whose row also holds another N-gram of the text."""
    owner_reads: float
    """Share of the reads made by the N-gram that reads the row most often; 1 if every row has a single owner."""
    hottest_share: float
    """Share of the reads that go to the most-read 1 % of all rows."""
    zipf_rank: np.ndarray
    """Ranks of rows from 1, the most-read, to the last row touched, evenly spaced in their logarithm, int64 [Z]."""
    zipf_reads: np.ndarray
    """Reads of the row of each rank, int64 [Z]."""
    norm_reads: np.ndarray
    """Lower bound of reads of each group of rows, int64 [Q]: 0, 1, 2, 4, 8, ..., without empty groups."""
    norm_rows: np.ndarray
    """Rows in each group, int64 [Q]."""
    norm: np.ndarray
    """Mean Euclidean norm of those rows, float64 [Q]."""


def slot_use(restored: Restored, corpus: Corpus, progress: Progress | None = None) -> list[HeadUse]:
    """Use of every head's table over the first 20 M tokens of the training split (`MAX_NGRAM_TOKENS`), each token reading once.

    Many untouched rows and hardly any shared reads mean that a table is larger than the text needs. Many N-grams per row and few reads by
    owners mean that it is too small. In between, rare N-grams share rows that frequent ones own (`shared_reads` and `owner_reads` are both
    high). If training covered less or more of the text, real reads differ by that factor; reads of pads at the start of sequences are not
    counted. `progress` is told of every head.

    Raises UserError when the model has no memory or the corpus is not the one it was trained on.
    """
    lookup = checked_lookup(restored.model)
    check_corpus(restored, corpus)
    report = progress or (lambda stage, done, total: None)
    total = len(lookup.tables) * (lookup.memory.max_ngram - 1) * lookup.hash.n_heads
    found: list[HeadUse] = []
    for table_set in range(len(lookup.tables)):
        report("reads of heads", len(found), total)
        for order, mixes in training_mixes(lookup, corpus, table_set):
            occurrences = Occurrences.count(mixes)
            for head in range(lookup.hash.n_heads):
                found.append(_head_use(lookup, table_set, order, head, occurrences))
                report("reads of heads", len(found), total)
    return found


def _head_use(lookup: MemoryLookup, table_set: int, order: int, head: int, occurrences: Occurrences) -> HeadUse:
    column = (order - 2) * lookup.hash.n_heads + head
    n_rows, first = lookup.hash.rows[table_set][column], sum(lookup.hash.rows[table_set][:column])
    row = occurrences.mixes % n_rows
    ngrams = np.bincount(row, minlength=n_rows)
    reads = np.bincount(row, weights=occurrences.counts, minlength=n_rows).astype(np.int64)
    total, touched = int(reads.sum()), int((reads > 0).sum())
    by_reads = np.sort(reads)[::-1]
    ranks = np.unique(np.geomspace(1, touched, _ZIPF_POINTS).round().astype(np.int64))
    table = lookup.tables[table_set].get_parameter("weight")[first : first + n_rows].detach()
    norms = table.double().norm(dim=-1).cpu().numpy()
    group = np.frexp(reads)[1]  # 0 for none, else 1 + the logarithm to base 2
    in_group = np.bincount(group)
    groups = np.flatnonzero(in_group)
    owner = np.zeros_like(reads)
    np.maximum.at(owner, row, occurrences.counts)
    return HeadUse(
        table_set=table_set,
        order=order,
        head=head,
        rows=n_rows,
        rows_touched=touched,
        distinct_ngrams=len(occurrences.mixes),
        ngrams_per_row=len(occurrences.mixes) / touched,
        shared_reads=float(reads[ngrams > 1].sum() / total),
        owner_reads=float(owner.sum() / total),
        hottest_share=float(by_reads[: max(1, round(HOTTEST * n_rows))].sum() / total),
        zipf_rank=ranks,
        zipf_reads=by_reads[ranks - 1],
        norm_reads=2**groups // 2,
        norm_rows=in_group[groups],
        norm=np.bincount(group, weights=norms)[groups] / in_group[groups],
    )
