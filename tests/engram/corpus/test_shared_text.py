from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram.corpus import shared_text as module
from engram.corpus.document import Document
from engram.corpus.shared_text import BEGINNING_BYTES, WIDTH, shared_text
from engram.corpus.spool import Spool


def quiet(*_):
    pass


def letters(seed, n):
    return "".join(np.random.default_rng(seed).choice(list("abcdefghijklmnopqrstuvwxyz"), size=n))


def compared(folder, train, val):
    spool = Spool(folder / "text", map(Document, [*train, *val]), 10**9, quiet)
    assert len(spool.digests) == len(train) + len(val)
    return shared_text(spool, range(len(train)), range(len(train), len(train) + len(val)), quiet)


LINES = st.lists(st.sampled_from(["a", " a", "b", "c\t", "d", "", "e"]), min_size=1, max_size=8).map("\n".join).filter(str.strip)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, min_size=2, max_size=8, unique=True), st.data())
def test_shares_of_lines_are_those_of_the_worst_training_document(tmp_path, texts, data):
    cut = data.draw(st.integers(1, len(texts) - 1))
    train, val = texts[:cut], texts[cut:]
    found = compared(tmp_path, train, val).lines
    for text, share in zip(val, found, strict=True):
        lines = Counter(line.strip() for line in text.split("\n") if line.strip())
        others = [{line.strip() for line in other.split("\n")} for other in train]
        different = max(len(lines.keys() & other) / len(lines) for other in others)
        counted = max(sum(n for line, n in lines.items() if line in other) / lines.total() for other in others)
        assert share == pytest.approx(max(different, counted))


def test_stretches_of_the_whole_and_of_the_beginning(tmp_path):
    copied, long = letters(1, 1000), letters(2, 20_000)
    val = [
        letters(3, 4000),  # nothing in common
        copied + letters(4, 1000),  # half of it
        long[:500] + letters(5, 12_000),  # a sixth of its beginning, little of the whole
        letters(6, 3500) + long[500:10_000],  # nothing of its beginning, most of the whole
        copied[200 : 200 + WIDTH - 1] + letters(7, 500),  # too short a stretch
    ]
    spaced = "\n    ".join(copied[i : i + 10] for i in range(0, len(copied), 10))
    shares = compared(tmp_path, [letters(8, 3000), spaced, long], val).stretches
    expected = [0, (1001 - WIDTH) / (2001 - WIDTH), (501 - WIDTH) / (BEGINNING_BYTES - WIDTH + 1), (9501 - WIDTH) / (13_001 - WIDTH), 0]
    np.testing.assert_allclose(shares, expected, atol=0.001)


def test_a_sample_of_the_windows_is_near(tmp_path, monkeypatch):
    train = [letters(i, 3000) for i in range(4)]
    val = [text[: 300 * i] + letters(10 + i, 3000 - 300 * i) for i, text in enumerate(train)]
    whole = compared(tmp_path, train, val).stretches
    monkeypatch.setattr(module, "_MOST_WINDOWS", 3000)  # every fourth
    sampled = compared(tmp_path, train, val).stretches
    assert (whole != sampled).any()
    np.testing.assert_allclose(whole, sampled, atol=0.03)
