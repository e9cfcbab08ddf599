"""LongPPL: perplexity over the tokens that a long context helps to predict (Fang et al., 2024, arXiv 2410.23771).

A token is a key token if a reference model gains more than `ALPHA` nats on it from the whole context, compared with the last tokens alone
(the long-short difference, LSD), and its loss with the whole context is less than -`BETA` nats. Perplexity over all tokens hardly depends
on context, as most tokens need none of it.

The paper's reference is a strong model. A model that finds its own key tokens has a LongPPL below exp(-`BETA`) = 7.4 by construction; then
only the share of key tokens and the gain are informative.
"""

import itertools
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from engram.model import Transformer
from engram.training.validation import PASS_TOKENS

ALPHA = 2.0
"""Gain in nats above which a token may be a key token (arXiv 2410.23771)."""
BETA = -2.0
"""Log-probability in nats, with the whole context, above which such a token is one (same source)."""


@dataclass(frozen=True, eq=False)
class ContextLosses:
    """Losses in nats of the same tokens with long and with short contexts: of all tokens of a document after the first K."""

    short_length: int
    """K."""
    long: np.ndarray
    """With the whole document before, fp64 [documents, T - K]."""
    short: np.ndarray
    """With at most the last K tokens, fp64 [documents, T - K]."""


@dataclass(frozen=True)
class LongPPL:
    """How well a model uses what is more than K tokens back. Perplexities are over the tokens of all documents together."""

    long_ppl: float | None
    """Perplexity of the key tokens with the whole context; None if there is no key token."""
    ppl: float
    """Perplexity of all tokens after the first K, with the whole context."""
    short_ppl: float
    """The same with at most the last K tokens."""
    key_share: float
    """Key tokens as a share of those tokens."""
    gain_by_position: list[float]
    """Mean gain in nats from the whole context, at the positions [K, 2K), [2K, 4K) and so on."""
    key_tokens: int
    tokens: int
    documents: int


def context_losses(
    model: Transformer, documents: np.ndarray, short_length: int, autocast: AbstractContextManager[object], stride: int | None = None
) -> ContextLosses:
    """Losses of `model`, whose mode is left as it was.

    Short contexts are windows of K tokens, of which the last `stride` are scored: a token is predicted from K - stride + 1 to K tokens,
    from exactly K if the stride is 1. This takes K / stride passes over the text.

    Args:
        model: on its device.
        documents: what is read and one more token, int64 [n, T + 1] (`engram.corpus.dataset.document_windows`).
        short_length: K, from 1 to T - 1; what the model was trained on before it was extended.
        autocast: context in which the model runs.
        stride: tokens scored per window, 1 to K; None: a quarter of K.

    Raises ValueError when there is no document, or K or the stride is out of range.
    """
    n, length = len(documents), documents.shape[1] - 1
    if n < 1 or not 1 <= short_length < length:
        raise ValueError(f"{n} documents of {length} tokens and a short context of {short_length}; there must be one, and longer than that")
    stride = max(1, short_length // 4) if stride is None else stride
    if not 1 <= stride <= short_length:
        raise ValueError(f"stride is {stride}; it must be from 1 to {short_length}")
    stride = min(stride, length - short_length)
    ends = np.minimum(np.arange(short_length + stride, length + stride, stride), length)  # [g]: tokens read at the end of each window
    reads = ends[:, None] + np.arange(-short_length, 1)  # [g, K + 1]
    windows = documents[:, reads].reshape(n * len(ends), short_length + 1)
    by_window = _last_losses(model, windows, stride, autocast).reshape(n, len(ends), stride)
    short = np.empty((n, length - short_length))
    for window, end in reversed(list(enumerate(ends - short_length))):  # the last may overlap the previous one, which has more context
        short[:, end - stride : end] = by_window[:, window]
    return ContextLosses(short_length, _last_losses(model, documents, length - short_length, autocast), short)


def long_ppl(losses: ContextLosses, reference: ContextLosses | None = None) -> LongPPL:
    """LongPPL of a model on the key tokens found by `reference`, losses of another model on the same tokens; None: its own.

    Raises ValueError when the two don't have the same shape.
    """
    judge = losses if reference is None else reference
    if judge.long.shape != losses.long.shape:
        raise ValueError(f"the reference has losses {judge.long.shape}, the model {losses.long.shape}")
    key = (judge.short - judge.long > ALPHA) & (judge.long < -BETA)
    gain, n_key = losses.short - losses.long, int(key.sum())
    return LongPPL(
        long_ppl=math.exp(float(losses.long[key].mean())) if n_key else None,
        ppl=math.exp(float(losses.long.mean())),
        short_ppl=math.exp(float(losses.short.mean())),
        key_share=n_key / key.size,
        gain_by_position=[float(gain[:, low:high].mean()) for low, high in _buckets(losses.short_length, gain.shape[1])],
        key_tokens=n_key,
        tokens=key.size,
        documents=len(key),
    )


def _buckets(short_length: int, length: int) -> list[tuple[int, int]]:
    """Positions [K, 2K), [2K, 4K) and so on, counted from K, up to `length`."""
    edges = [0]
    while edges[-1] < length:
        edges.append(min(2 * edges[-1] + short_length, length))
    return list(itertools.pairwise(edges))


@torch.no_grad()
def _last_losses(model: Transformer, windows: np.ndarray, count: int, autocast: AbstractContextManager[object]) -> np.ndarray:
    """Losses of the last `count` targets of windows int64 [n, T + 1]: fp64 [n, count]."""
    training, device = model.training, model.head_weight.device
    model.eval()
    parts = []
    with autocast:
        for part in torch.from_numpy(windows).split(max(1, PASS_TOKENS // windows.shape[1])):
            tokens = part.to(device)
            parts.append(model.token_losses(tokens[:, :-1], tokens[:, 1:], count).double().cpu())
    model.train(training)
    return torch.cat(parts).numpy()
