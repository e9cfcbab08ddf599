"""Centred kernel alignment of layers (Kornblith et al., 2019), linear kernel, unbiased, over minibatches (Nguyen et al., 2021)."""

from collections.abc import Sequence

import numpy as np

from engram.analysis.intervals import REPLICATES, DocumentBootstrap, Means
from engram.errors import UserError

MINIBATCH = 256
TOP_LAYERS = 5
"""Layers that the soft alignment index averages over (paper, 6.1: top-5)."""
_SMALLEST = 4
"""Tokens that the unbiased estimate needs."""


def centred_gram(x: np.ndarray) -> np.ndarray:
    """U-centred Gram matrix of the linear kernel: [n, d] -> float64 [n, n] with a zero diagonal.

    Of two such matrices `sum over i, j of A_ij B_ij / (n (n - 3))` is the unbiased HSIC_1 (Song et al., 2012, eq. 5),
    `(tr KL + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'KL1) / (n (n - 3))` with the diagonals of K and L set to 0
    (Szekely and Rizzo, 2014, for the identity).
    """
    n = len(x)
    wide = x.astype(np.float64)
    wide -= wide.mean(axis=0)  # this only affects rounding
    gram = wide @ wide.T
    np.fill_diagonal(gram, 0)
    rows = gram.sum(axis=0) / (n - 2)
    centred: np.ndarray = gram - rows[:, None] - rows + rows.sum() / (n - 1)
    np.fill_diagonal(centred, 0)
    return centred


def document_minibatches(document: np.ndarray, size: int = MINIBATCH, seed: int = 0) -> list[np.ndarray]:
    """Minibatches of whole documents in random order, `size` tokens or more each: token numbers, int64.

    A document is in one minibatch only, so that minibatches are independent and resampling them amounts to resampling documents. Raises
    UserError when there are fewer than the four tokens that the unbiased estimate needs.
    """
    if len(document) < _SMALLEST:
        raise UserError(f"there are {len(document)} tokens to compare; CKA needs at least {_SMALLEST}: give more spans")
    _, place = np.unique(document, return_inverse=True)
    size = max(size, _SMALLEST)
    order = np.random.default_rng(seed).permutation(place.max() + 1)
    by_document = [np.flatnonzero(place == number) for number in order]
    batches: list[list[np.ndarray]] = [[]]
    left = len(document)
    for tokens in by_document:
        if sum(map(len, batches[-1])) >= size and left >= size:  # a remainder that is too small stays with the last
            batches.append([])
        batches[-1].append(tokens)
        left -= len(tokens)
    return [np.concatenate(batch) for batch in batches]


def minibatch_cka(a: np.ndarray, b: np.ndarray, batches: Sequence[np.ndarray], replicates: int = REPLICATES, seed: int = 0) -> Means:
    """CKA of every layer of A with every layer of B: states [L_a, N, d_a] and [L_b, N, d_b] -> mean [L_a L_b], row by row.

    `mean HSIC_1(X, Y) / sqrt(mean HSIC_1(X, X) mean HSIC_1(Y, Y))`, each mean over the minibatches (Nguyen et al., 2021). 1 means
    equal up to rotation and scale; independent states give 0 on average, so a single estimate may be negative. NaN where states do not
    vary. The replicates resample minibatches; with one minibatch they are NaN.
    """
    parts = []
    for batch in batches:
        grams_a = np.stack([centred_gram(layer[batch]).ravel() for layer in a])  # [L_a, n n]
        grams_b = np.stack([centred_gram(layer[batch]).ravel() for layer in b])
        scale = len(batch) * (len(batch) - 3)
        own = [(grams**2).sum(axis=1) for grams in (grams_a, grams_b)]
        parts.append(np.concatenate([(grams_a @ grams_b.T).ravel(), *own]) / scale)
    means = DocumentBootstrap(np.arange(len(batches)), replicates, seed).means(np.stack(parts, axis=1))
    return Means(_ratio(means.mean, len(a), len(b)), _ratio(means.replicates, len(a), len(b)))


def _ratio(hsic: np.ndarray, n_a: int, n_b: int) -> np.ndarray:
    """[..., L_a L_b + L_a + L_b] -> [..., L_a L_b]"""
    both, own_a, own_b = np.split(hsic, [n_a * n_b, n_a * n_b + n_a], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: np.ndarray = both / np.sqrt(own_a[..., :, None] * own_b[..., None, :]).reshape(both.shape)
    return ratio


def soft_alignment(similarity: np.ndarray) -> np.ndarray:
    """The place in A of each layer of B: similarity [..., L_a, L_b] -> index in layers of A, from 0, [..., L_b].

    `a_j = sum over i in I_j of S_ij i / sum over i in I_j of S_ij`, I_j the `TOP_LAYERS` layers of A most similar to layer j of B (6.1), or
    all if A has fewer. `a_j > j` means that B does with j layers what takes A more. Similarities below 0 are noise around none and get no
    weight; NaN where no layer is similar.
    """
    layers = np.arange(similarity.shape[-2], dtype=float)
    chosen = np.argsort(-similarity, axis=-2, kind="stable")[..., :TOP_LAYERS, :]
    weights = np.maximum(np.take_along_axis(similarity, chosen, axis=-2), 0)
    with np.errstate(invalid="ignore"):
        index: np.ndarray = (weights * layers[chosen]).sum(axis=-2) / weights.sum(axis=-2)
    return index
