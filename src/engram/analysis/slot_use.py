"""How the tables are used: is there too little room for the N-grams of the text, or too much? (paper, 2.2, 2.5)"""

from dataclasses import dataclass

import numpy as np

from engram.analysis.ngram_counts import Occurrences, checked_lookup, training_mixes
from engram.analysis.split import check_corpus
from engram.corpus.dataset import Corpus
from engram.memory.module import MemoryLookup
from engram.training.restore import Restored

HOTTEST = 0.01
"""Share of the rows that counts as the hottest."""
_ZIPF_POINTS = 100


@dataclass(frozen=True, eq=False)
class HeadUse:
    """The table of one head, read once over the training split."""

    table_set: int
    """Number of the set of tables: of most designs one for each memory layer, in their order."""
    order: int
    head: int
    """Number of the head within its order, from 0."""
    rows: int
    rows_touched: int
    """Rows that are read at all."""
    distinct_ngrams: int
    """N-grams of the order in the text."""
    ngrams_per_row: float
    """Mean over the rows touched: 1 where no two N-grams of the text share a row."""
    shared_reads: float
    """Share of the reads whose row also holds another N-gram of the text."""
    owner_reads: float
    """Share of the reads that are of the N-gram that reads their row most: 1 where every row has one owner."""
    hottest_share: float
    """Share of the reads that go to the most-read 1 % of all rows."""
    zipf_rank: np.ndarray
    """int64 [Z]: ranks of rows, from 1, the most-read first, evenly spaced in their logarithm up to the last row touched"""
    zipf_reads: np.ndarray
    """int64 [Z]: reads of the row of that rank"""
    norm_reads: np.ndarray
    """int64 [Q]: groups of rows by reads, each from this number up to the next group's: 0, 1, 2, 4, 8, ...; those that have a row"""
    norm_rows: np.ndarray
    """int64 [Q]: rows in each group"""
    norm: np.ndarray
    """float64 [Q]: mean Euclidean norm of those rows"""


def slot_use(restored: Restored, corpus: Corpus) -> list[HeadUse]:
    """Use of every head's table over the first 20 M tokens of the training split (`MAX_NGRAM_TOKENS`), each token reading once.

    Many untouched rows and hardly any shared reads: the table is larger than the text needs. Many N-grams in a row and few reads by
    its owner: it is too small for the text. Between the two, rare N-grams share rows that frequent ones own (`shared_reads` and
    `owner_reads` both high). Where a training went over less or more of the text, real reads differ by that factor, and pads at the
    start of a sequence come on top.

    Raises UserError when the model has no memory or the corpus is not that of its training.
    """
    lookup = checked_lookup(restored.model)
    check_corpus(restored, corpus)
    found = []
    for table_set in range(len(lookup.tables)):
        for order, mixes in training_mixes(lookup, corpus, table_set):
            occurrences = Occurrences.count(mixes)
            found += [_head_use(lookup, table_set, order, head, occurrences) for head in range(lookup.hash.n_heads)]
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
