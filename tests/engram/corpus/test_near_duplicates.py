import numpy as np
import pytest

from engram.corpus.document import Document
from engram.corpus.near_duplicates import near_duplicates
from engram.corpus.split import connected
from engram.corpus.spool import Spool

LICENCE = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and its files. " * 6


def prose(seed, n=400):
    generator = np.random.default_rng(seed)
    return " ".join("".join(generator.choice(list("abcdefghij"), size=length)) for length in generator.integers(2, 9, size=n))


def clusters(folder, texts):
    spool = Spool(folder / "text", map(Document, texts), 10**9, lambda *_: None)
    labels = connected(len(texts), near_duplicates(spool, lambda *_: None))
    return [np.flatnonzero(labels == label).tolist() for label in np.unique(labels) if (labels == label).sum() > 1]


def test_copies_with_changes_are_found_and_others_are_not(tmp_path):
    words = prose(1).split()
    renamed = " ".join("renamed" if i % 40 == 0 else word for i, word in enumerate(words))
    longer = " ".join(words + prose(2, 120).split())
    texts = [prose(3), " ".join(words), prose(4), renamed, "\n\n    ".join(words), longer, prose(5)]
    assert clusters(tmp_path, texts) == [[1, 3, 4, 5]]


def test_files_of_one_template_and_texts_below_one_notice(tmp_path):
    tables = [f"class Table{i}:\n" + "".join(f"    entry_number_{j:03d} = lookup(0x{j:04x})\n" for j in range(60)) for i in range(4)]
    notices = [LICENCE + f"\n{prose(i, 10)}" for i in range(3)]
    long_below_notice = LICENCE + prose(20, 2000)
    assert clusters(tmp_path, [*tables, prose(9), *notices, long_below_notice]) == [[0, 1, 2, 3], [5, 6, 7]]


@pytest.mark.parametrize("count", [1, 300])
def test_short_texts_of_one_form_are_no_copies(tmp_path, count):
    assert clusters(tmp_path, [f"Document {i}: the quick brown fox number {i * i}" for i in range(count)]) == []


def test_many_copies_are_one_cluster(tmp_path):
    text = prose(1)
    copies = [f"{text} {prose(100 + i, 5)}" for i in range(500)]
    assert clusters(tmp_path, [prose(2), *copies, prose(3)]) == [list(range(1, 501))]


def test_signatures_are_the_same_on_every_machine():
    """The library's hashes decide the split, and with it the fingerprint of a corpus: another version of them is a change."""
    from rensa import RMinHash

    hashes = np.arange(1, 6, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(hashes, np.array([0, 2, 5], dtype=np.uint64), 3, 1).to_rows()
    assert rows == [[168718343, 1395639000, 675056178], [411333545, 1415607224, 29018744]]
