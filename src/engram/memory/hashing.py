"""From token ids to table rows: suffix N-grams and multi-head hashing (paper, 2.2)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from engram.history import History
from engram.memory.designs.base import Memory
from engram.memory.primes import head_table_sizes

_LAYER_PRIME = 10_007


def multipliers(seed: int, layer: int, max_ngram: int, compressed_vocab_size: int) -> np.ndarray:
    """N odd int64 multipliers of a layer; no product with an id below `compressed_vocab_size` overflows.

    Drawn as in the public module: `2 r + 1` with r from `default_rng(seed + 10007 * layer)`.
    """
    half = max(1, np.iinfo(np.int64).max // compressed_vocab_size // 2)
    return np.random.default_rng(seed + _LAYER_PRIME * layer).integers(0, half, size=max_ngram, dtype=np.int64) * 2 + 1


class NgramHash(nn.Module):
    """The rows that the tokens of a batch read, for every set of tables at once.

    They depend on the tokens only, so this runs once per batch, before the first layer.

    Args:
        layers: layer numbers that seed the sets of tables, in the order in which they take their primes.
        table_sizes: requested rows per head, for each order 2..N.
        n_heads: heads per order (K).
        compressed_vocab_size: number of canonical ids, |V'|.
        pad_id: canonical id that stands before the first token.
        seed: seed of the multipliers.
    """

    multipliers: Tensor
    """int64 [layers, N]"""
    head_sizes: Tensor
    """int64 [layers, H]: rows of each head's table, orders outermost"""
    offsets: Tensor
    """int64 [layers, H]: first row of each head's table, of all heads of a layer stacked"""

    def __init__(
        self, layers: Sequence[int], table_sizes: Sequence[int], n_heads: int, compressed_vocab_size: int, pad_id: int, seed: int
    ) -> None:
        super().__init__()
        self.max_ngram = len(table_sizes) + 1
        self.n_heads = n_heads
        self.pad_id = pad_id
        drawn = np.stack([multipliers(seed, layer, self.max_ngram, compressed_vocab_size) for layer in layers])
        sizes = head_table_sizes(table_sizes, n_heads, len(layers))
        self.register_buffer("multipliers", torch.from_numpy(drawn), persistent=False)
        self.rows = [[rows for order in layer for rows in order] for layer in sizes]
        self.register_buffer("head_sizes", torch.tensor(self.rows), persistent=False)
        self.register_buffer("offsets", self.head_sizes.cumsum(1) - self.head_sizes, persistent=False)

    @classmethod
    def from_config(cls, memory: Memory, compressed_vocab_size: int, pad_id: int) -> "NgramHash":
        return cls(memory.table_layers, memory.table_sizes, memory.n_heads, compressed_vocab_size, pad_id, memory.hash_seed)

    def mixes(self, ids: Tensor) -> Tensor:
        """Canonical ids, int64 [B, T] -> a number for the N-gram of each order 2..N that ends at each token, int64 [layers, B, T, N - 1].

        `XOR over k = 0..n-1 of x'[t-k] * a[k]` (paper, 2.2): 63 bits, so that two N-grams of a corpus hardly ever share a number.
        """
        return self._mix(self.window(ids, History()))

    def window(self, ids: Tensor, past: History) -> Tensor:
        """Canonical ids, int64 [B, T] -> the ids that their N-grams are made of: the same, preceded by N - 1 others, [B, N - 1 + T]."""
        return past.window("ids", ids, self.max_ngram - 1, fill=self.pad_id)

    def _mix(self, window: Tensor) -> Tensor:
        before = self.max_ngram - 1
        length = window.shape[1] - before
        weights = self.multipliers[:, :, None, None]  # [layers, N, 1, 1]
        mix = window[:, before:] * weights[:, 0]  # [layers, B, T]
        orders = []
        for k in range(1, self.max_ngram):
            mix = mix ^ (window[:, before - k : before - k + length] * weights[:, k])  # ids at t - k
            orders.append(mix)
        return torch.stack(orders, dim=-1)

    def forward(self, ids: Tensor, past: History | None = None) -> Tensor:
        """Canonical ids, int64 [B, T] -> indices into each head's own table, int64 [layers, B, T, H]."""
        return self.indices(self.window(ids, past or History()))

    def rows_on_gpu(self, tokens: Tensor, compression: Tensor) -> Tensor:
        """Token ids of whole sequences int64 [B, T], canonical ids int64 [V] -> rows of all heads' tables, int32 [layers, B, T, H]."""
        from engram.kernels.gpu.hashing import rows

        return rows(tokens, compression, self.multipliers, self.head_sizes, self.offsets, self.n_heads, self.pad_id)

    def indices(self, window: Tensor) -> Tensor:
        """The same, from what `window` returned, int64 [B, N - 1 + T]."""
        mixes = self._mix(window).repeat_interleave(self.n_heads, dim=-1)  # [layers, B, T, H]
        return mixes % self.head_sizes[:, None, None, :]
