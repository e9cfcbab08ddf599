import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram.corpus import rolling, token_overlap
from engram.corpus.token_overlap import token_overlap as overlap


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 3), max_size=80),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=20), min_size=1, max_size=6),
    st.integers(1, 6),
    st.integers(1, 20),
    st.sampled_from([10, 10**6]),
)
def test_against_a_count_by_hand(monkeypatch, train, documents, n, most, at_once):
    monkeypatch.setattr(token_overlap, "_MOST_TOKENS", at_once)
    monkeypatch.setattr(rolling, "BLOCK", max(at_once, n))
    known = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}
    expected = []
    for document in documents:
        seen = document[:most]
        covered = {i + k for i in range(len(seen) - n + 1) if tuple(seen[i : i + n]) in known for k in range(n)}
        expected.append(len(covered) / len(seen))
    starts = np.cumsum([0, *map(len, documents)])
    found = overlap(np.array(train, dtype=np.uint16), np.concatenate(documents).astype(np.uint16), starts, most, 4, n)
    assert found.dtype == np.float64
    assert found.tolist() == pytest.approx(expected)


def test_a_passage_of_33_tokens_is_counted_whole_and_one_of_31_not():
    train = np.arange(1000, dtype=np.uint32)
    other = np.arange(2000, 2067, dtype=np.uint32)
    val = np.concatenate([train[500:533], other, train[100:131], other + 100])
    found = overlap(train, val, np.array([0, 100, 198]), 1024, 3000, 32)
    assert found.tolist() == [0.33, 0.0]
