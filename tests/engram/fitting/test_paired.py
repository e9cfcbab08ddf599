import numpy as np
import pytest

from engram.errors import UserError
from engram.fitting.paired import compare_pairs

DOCUMENTS = 150


def pairs(n, difference, rng, spread=0.005):
    rng = np.random.default_rng(rng)
    tokens = rng.integers(50, 1000, DOCUMENTS).astype(float)
    b = 3 + rng.normal(0, 0.4, DOCUMENTS) + rng.normal(0, 0.01, (n, 1)) + rng.normal(0, 0.03, (n, DOCUMENTS))
    a = b + difference + spread * rng.normal(size=(n, 1)) + rng.normal(0, 0.05, DOCUMENTS)
    return a * tokens, b * tokens, tokens


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_cover(n):
    covered = []
    for rng in range(120):
        found = compare_pairs(*pairs(n, 0.02, rng), replicates=400, seed=rng).difference
        covered.append(found.low <= 0.02 <= found.high)
    assert np.mean(covered) >= 0.9


def test_no_difference_is_seldom_found():
    p = [compare_pairs(*pairs(3, 0, rng), replicates=400, seed=rng).p_value for rng in range(120)]
    assert np.mean(np.array(p) < 0.05) <= 0.1


def test_a_large_difference_is_found_and_named():
    found = compare_pairs(*pairs(4, -0.1, 1))
    assert found.difference.high < 0
    assert found.p_value < 0.01
    assert (found.n_pairs, found.n_documents) == (4, DOCUMENTS)
    assert "A is better by 0.1" in found.text
    assert "B is better" in compare_pairs(*pairs(4, 0.1, 1)).text


def test_one_pair_has_documents_only_and_says_so():
    found = compare_pairs(*pairs(1, 0.0, 1))
    assert found.difference.low < found.difference.estimate < found.difference.high
    assert "spread of seeds is not in the interval" in found.text


def test_signs_turn_with_the_sides():
    a, b, tokens = pairs(3, 0.02, 4)
    one, other = compare_pairs(a, b, tokens), compare_pairs(b, a, tokens)
    assert one.difference.estimate == pytest.approx(-other.difference.estimate)
    assert one.difference.low == pytest.approx(-other.difference.high, abs=0.003)


def test_equal_losses():
    a, _, tokens = pairs(2, 0, 0)
    found = compare_pairs(a, a, tokens)
    assert (found.difference.low, found.difference.high, found.p_value) == (0, 0, 1)


def test_arrays_that_do_not_fit_are_refused():
    a, b, tokens = pairs(2, 0, 0)
    for wrong in ((a[:1], b, tokens), (a, b, tokens[1:]), (a[0], b[0], tokens), (a * np.nan, b, tokens)):
        with pytest.raises(UserError):
            compare_pairs(*wrong)
