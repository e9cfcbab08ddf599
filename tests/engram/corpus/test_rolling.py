import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram.corpus import rolling
from engram.corpus.rolling import HashSet, spread, window_blocks, window_hashes

VALUES = spread(np.arange(4))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8), st.sampled_from([8, 13, 1 << 20]))
def test_windows_have_the_same_hash_if_they_are_the_same_and_only_then(monkeypatch, elements, width, block):
    monkeypatch.setattr(rolling, "BLOCK", block)
    array = np.array(elements, dtype=np.uint16)
    windows = [tuple(elements[i : i + width]) for i in range(len(elements) - width + 1)]
    hashes = window_hashes(array, VALUES, width)
    assert hashes.dtype == np.uint64
    assert len(hashes) == len(windows)
    assert len(set(zip(windows, hashes.tolist(), strict=True))) == len(set(windows)) == len(set(hashes.tolist()))
    # A long sequence is hashed in parts: the same window far from another has its hash all the same.
    for start in range(len(windows)):
        assert window_hashes(array[start : start + width], VALUES, width).tolist() == [hashes[start]]
    assert all(len(part) <= block for part in window_blocks(array, VALUES, width))


def test_hashes_are_the_same_on_every_machine():
    golden = 0x9E3779B97F4A7C15
    # The first outputs of splitmix64 from the state 0, as published with it.
    assert spread(np.array([0, golden], dtype=np.uint64)).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    a, b, c = VALUES[:3].tolist()
    assert window_hashes(np.arange(3), VALUES, 2).tolist() == [(a + golden * b) % 2**64, (b + golden * c) % 2**64]


@given(st.lists(st.integers(0, 40)), st.lists(st.integers(0, 40)), st.booleans())
def test_a_set_knows_what_it_has_met(known, others, mixed):
    def hashes(numbers):
        array = np.array(numbers, dtype=np.uint64)
        return spread(array) if mixed else array  # numbers that are small fall into one place of the bitmap

    found = HashSet(hashes(known))
    found.meet(hashes(others[::2]))
    found.meet(hashes(others[1::2]))
    assert found.met(hashes(known)).tolist() == [number in others for number in known]


def test_a_width_that_does_not_fit():
    assert len(window_hashes(np.zeros(3, dtype=np.uint8), VALUES, 4)) == 0
    with pytest.raises(IndexError):
        window_hashes(np.full(3, 4), VALUES, 2)
