"""Replicates of a sweep, with other documents and other noise in the trials.

Documents are resampled with replacement. The weights depend only on the random seed and on the number of documents, so curves fitted with
one seed share their documents (they are paired), while the noise of their trials is independent.

Trials cannot be resampled: with one to five seeds, resamples are far too similar (with one, always the same). Instead their noise is
Gaussian, with a variance that is itself drawn from what the residuals allow, which gives the tails of Student's t.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from engram.fitting.layout import Layout

_CHUNK = 2**22
"""Numbers in a block of weights: 32 MB."""


def resample_documents(loss_sum: np.ndarray, n_tokens: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Mean losses over resampled documents, nats per token, [B, n], from loss sums [n, D] and tokens [D]."""
    n_documents = len(n_tokens)
    columns = np.vstack([loss_sum, n_tokens]).T
    # All curves of a sweep have the same weights; with very many documents they are drawn each time rather than kept.
    draw = _kept_weights if replicates * n_documents <= _CHUNK else _weights
    sums = np.concatenate([weights @ columns for weights in draw(n_documents, replicates, seed)])
    means: np.ndarray = sums[:, :-1] / sums[:, -1:]
    return means


def _weights(n_documents: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """How often each document is drawn, in blocks of replicates, float [b, D]."""
    rng = np.random.default_rng([seed, n_documents])
    block = max(1, _CHUNK // n_documents)
    for start in range(0, replicates, block):
        size = min(block, replicates - start)
        drawn = rng.integers(0, n_documents, (size, n_documents)) + np.arange(size)[:, None] * n_documents
        yield np.bincount(drawn.ravel(), minlength=size * n_documents).reshape(size, n_documents).astype(float)


@lru_cache(maxsize=1)
def _kept_weights(n_documents: int, replicates: int, seed: int) -> list[np.ndarray]:
    return list(_weights(n_documents, replicates, seed))


def document_deviations(layout: Layout, replicates: int, seed: int) -> np.ndarray:
    """By how much other documents would have moved the mean at each x, nats per token, [B, k]."""
    obs = layout.observations
    means = resample_documents(obs.loss_sum, obs.n_tokens, replicates, seed)
    deviations: np.ndarray = (means - obs.loss) @ layout.to_means.T
    return deviations


def trial_rng(layout: Layout, seed: int) -> np.random.Generator:
    """Random numbers for the noise of the trials: the same each time for one curve, different for different curves with the same `seed`.

    They are derived from the rounded shape of the curve, so that the unit and the level of the losses change nothing.
    """
    means = layout.means - layout.means.min()
    shape = means / means.max() if means.max() > 0 else means
    # The offset keeps round numbers off the edges between two bins, where the last digit would decide
    digest = hashlib.sha256(np.floor(shape * 1000 + 0.3718).astype(np.int64).tobytes()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def trial_errors(layout: Layout, variances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Errors of the means due to the trials' own noise, nats per token, [B, k], for the variances at each x, nats^2 [B, k]."""
    drawn = rng.standard_normal((len(variances), len(layout.which)))
    errors: np.ndarray = (np.sqrt(variances)[:, layout.which] * drawn) @ layout.to_means.T
    return errors
