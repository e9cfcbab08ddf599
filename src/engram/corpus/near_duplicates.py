"""Documents that are nearly the same: copies with changes, files generated from one template, texts below one long notice."""

import numpy as np

from engram.corpus.rolling import spread
from engram.corpus.spool import Progress, Spool
from engram.corpus.windows import BATCH_BYTES, BATCH_DOCUMENTS, text_windows

SIMILARITY = 0.4
"""Share of their windows that two documents must have in common (Jaccard, as MinHash estimates it) to be near-duplicates."""
_WIDTH = 32
_EVERY = 8
_FEWEST_WINDOWS = 8
"""Below, which is about a hundred characters, the estimate would be chance, and two short texts of one form would count as copies."""
_BANDS, _ROWS = 32, 3
"""Pairs of similarity 0.3, 0.4 and 0.5 are looked at with probability 0.58, 0.88 and 0.99: 1 - (1 - s^3)^32."""
_SEED = 1


def near_duplicates(spool: Spool, report: Progress) -> np.ndarray:
    """Pairs of near-duplicates, int64 [n, 2]: enough of them to connect all documents of a cluster, not every pair of it."""
    signatures, windows = _signatures(spool, report)
    compared = np.flatnonzero(windows >= _FEWEST_WINDOWS)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for band in range(_BANDS):
        keys = np.zeros(len(compared), dtype=np.uint64)
        for row in range(band * _ROWS, (band + 1) * _ROWS):
            keys = spread(keys + signatures[compared, row])
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        # Each is compared with the first of those with its key: all pairs of a thousand copies would be half a million.
        firsts = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
        pairs.append(np.stack([compared[firsts[~is_first]], compared[order[~is_first]]], axis=1))
    found = np.unique(np.concatenate(pairs), axis=0)
    similar = [
        (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) >= SIMILARITY
        for part in np.array_split(found, 1 + len(found) // BATCH_DOCUMENTS)
    ]
    return found[np.concatenate(similar)]


def _signatures(spool: Spool, report: Progress) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signature of every document, uint32 [documents, 96], and how many windows it is of, int64 [documents]."""
    from rensa import RMinHash

    documents = range(len(spool.digests))
    signatures = np.zeros((len(documents), _BANDS * _ROWS), dtype=np.uint32)
    counts = np.zeros(len(documents), dtype=np.int64)
    for batch in spool.batches(documents, BATCH_BYTES, BATCH_DOCUMENTS):
        windows = text_windows(list(spool.encoded(batch)), _WIDTH, _EVERY)
        count = np.bincount(windows.document, minlength=len(batch))
        offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.uint64)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(windows.hash, offsets, _BANDS * _ROWS, _SEED).to_rows()
        signatures[batch[0] : batch[-1] + 1] = rows
        counts[batch[0] : batch[-1] + 1] = count
        report("comparing documents", int(spool.ends[batch[-1] + 1]), int(spool.ends[-1]))
    return signatures, counts
