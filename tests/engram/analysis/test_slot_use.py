from collections import Counter

import numpy as np
import pytest
import torch

from engram.analysis.slot_use import slot_use
from engram.errors import UserError


@pytest.mark.parametrize("memory", ["engram", "value"])
def test_use_of_a_small_table_by_hand(restore, tiny_corpus, memory):
    restored = restore(tiny_corpus, memory)
    found = slot_use(restored, tiny_corpus)
    lookup = restored.model.lookup
    assert [(use.table_set, use.order, use.head) for use in found] == [
        (number, order, head) for number in range(len(lookup.tables)) for order in (2, 3) for head in (0, 1)
    ]
    tokens = torch.from_numpy(tiny_corpus.train.astype(np.int64))[None]
    pad = int(tiny_corpus.compression[tiny_corpus.end_of_text_id])
    ids = [pad, pad, *tiny_corpus.compression[tiny_corpus.train].tolist()]
    rows = lookup.hash(lookup.compression[tokens])[:, 0].numpy()  # [sets, T, H]
    for use in found:
        column = (use.order - 2) * 2 + use.head
        read = rows[use.table_set, :, column].tolist()
        ngrams = [tuple(ids[t - use.order + 1 : t + 1]) for t in range(2, len(ids))]
        in_row = {}
        for row, ngram in zip(read, ngrams, strict=True):
            in_row.setdefault(row, Counter())[ngram] += 1
        reads = sorted((sum(owners.values()) for owners in in_row.values()), reverse=True)
        assert use.rows == lookup.hash.rows[use.table_set][column]
        assert use.rows_touched == len(in_row)
        assert use.distinct_ngrams == len(set(ngrams))
        assert use.ngrams_per_row == pytest.approx(np.mean([len(owners) for owners in in_row.values()]))
        assert use.shared_reads == pytest.approx(sum(o.total() for o in in_row.values() if len(o) > 1) / len(read))
        assert use.owner_reads == pytest.approx(sum(max(o.values()) for o in in_row.values()) / len(read))
        assert use.hottest_share == pytest.approx(reads[0] / len(read))  # 1 % of 40 or 50 rows is one
        assert use.zipf_rank[0] == 1
        assert use.zipf_rank[-1] == len(in_row)
        assert use.zipf_reads.tolist() == [reads[rank - 1] for rank in use.zipf_rank]
        table = lookup.tables[use.table_set]
        first = int(table.offsets[column])
        norms = table.weight[first : first + use.rows].norm(dim=-1).tolist()
        by_group = {}
        for row, norm in enumerate(norms):
            n = sum(in_row.get(row, Counter()).values())
            by_group.setdefault(0 if n == 0 else 2 ** (n.bit_length() - 1), []).append(norm)
        assert use.norm_reads.tolist() == sorted(by_group)
        assert use.norm_rows.tolist() == [len(by_group[group]) for group in sorted(by_group)]
        assert np.allclose(use.norm, [np.mean(by_group[group]) for group in sorted(by_group)])


def test_a_table_with_room_for_all(restore, tiny_corpus, build, monkeypatch):
    monkeypatch.setitem(
        build.__globals__["MEMORIES"], "engram", dict(build.__globals__["MEMORIES"]["engram"], table_sizes=[900_000, 900_000])
    )
    use = slot_use(restore(tiny_corpus, "engram"), tiny_corpus)[0]
    assert use.ngrams_per_row < 1.01
    assert use.shared_reads < 0.05
    assert use.owner_reads > 0.95
    assert use.norm_reads[0] == 0


def test_without_memory_or_with_another_corpus(restore, tiny_corpus, code_corpus):
    with pytest.raises(UserError, match="the model has no memory"):
        slot_use(restore(tiny_corpus, "none"), tiny_corpus)
    with pytest.raises(UserError, match="was trained with tokenizer"):
        slot_use(restore(tiny_corpus), code_corpus)
