"""Prime table sizes of the hash heads (paper, 2.2; public module `NgramHashMapping`)."""

from collections.abc import Sequence
from functools import lru_cache

_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


@lru_cache(maxsize=1 << 20)
def is_prime(n: int) -> bool:
    """Miller-Rabin with the witnesses that make it exact below 3.3e24."""
    if n < 2:
        return False
    for p in _WITNESSES:
        if n % p == 0:
            return n == p
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in _WITNESSES:
        x = pow(witness, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


@lru_cache(maxsize=4096)
def _head_table_sizes(requested: tuple[int, ...], n_heads: int, n_layers: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    used: set[int] = set()
    layers = []
    for _ in range(n_layers):
        orders = []
        for size in requested:
            heads: list[int] = []
            candidate = size
            while len(heads) < n_heads:
                if candidate not in used and is_prime(candidate):
                    heads.append(candidate)
                    used.add(candidate)
                candidate += 1
            orders.append(tuple(heads))
        layers.append(tuple(orders))
    return tuple(layers)


def head_table_sizes(requested: Sequence[int], n_heads: int, n_layers: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Rows of every head's table: `[layer][order - 2][head]`, all distinct primes.

    For each layer in turn and each order in turn, the first head takes the smallest unused prime that is at least the requested size, and
    each further head the next unused prime above.
    """
    return _head_table_sizes(tuple(requested), n_heads, n_layers)
