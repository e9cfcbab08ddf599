from hypothesis import given
from hypothesis import strategies as st

from engram.memory.primes import head_table_sizes, is_prime


def by_trial_division(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def test_small_numbers():
    assert [n for n in range(2000) if is_prime(n)] == [n for n in range(2000) if by_trial_division(n)]


@given(st.integers(0, 10**9))
def test_any_number(n):
    assert is_prime(n) == by_trial_division(n)


def test_strong_pseudoprimes_are_not_taken():
    assert not any(map(is_prime, (2047, 1373653, 25326001, 3215031751, 3825123056546413051)))


@given(st.lists(st.integers(2, 500), min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 3))
def test_sizes_are_distinct_primes_taken_upwards(requested, heads, layers):
    sizes = head_table_sizes(requested, heads, layers)
    flat = [rows for layer in sizes for order in layer for rows in order]
    assert len(set(flat)) == len(flat) == layers * len(requested) * heads
    used = set()
    for layer in sizes:
        for size, order in zip(requested, layer, strict=True):
            for rows in order:
                assert rows == min(p for p in range(size, rows + 1) if by_trial_division(p) and p not in used)
                used.add(rows)
                size = rows + 1
