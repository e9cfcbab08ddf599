"""Is A better than B? Trials matched in pairs, on the same documents."""

import numpy as np

from engram.errors import UserError
from engram.fitting.bootstrap import resample_documents
from engram.fitting.results import Interval, PairedDifference


def compare_pairs(
    loss_sum_a: np.ndarray, loss_sum_b: np.ndarray, n_tokens: np.ndarray, *, replicates: int = 2000, seed: int = 0
) -> PairedDifference:
    """Loss of A minus loss of B.

    The interval covers the sampling of documents and, from two pairs on, the spread of pairs with the tails of Student's t.

    Args:
        loss_sum_a: sums of losses by trial and document, nats, [n, D].
        loss_sum_b: the same; row i of A and row i of B belong together (one seed).
        n_tokens: tokens of the documents, [D].
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Raises UserError when the arrays do not match.
    """
    a, b, tokens = np.asarray(loss_sum_a, float), np.asarray(loss_sum_b, float), np.asarray(n_tokens, float)
    if a.ndim != 2 or a.shape != b.shape or a.shape[1:] != tokens.shape or not a.size:
        raise UserError(f"losses of A are {a.shape}, of B {b.shape}, for {tokens.shape} documents; both must be pairs by documents")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isfinite(tokens).all() and (tokens > 0).all()):
        raise UserError("losses and numbers of tokens must be finite, and every document needs a token")
    n, n_documents = a.shape
    by_pair = (a - b).sum(axis=1) / tokens.sum()
    errors = resample_documents((a - b).mean(axis=0)[None], tokens, replicates, seed)[:, 0] - by_pair.mean()
    if n > 1:
        rng = np.random.default_rng([seed, n, n_documents])
        # Document sampling alone makes pairs differ; that part comes with the documents
        apart = (a - b) - (a - b).mean(axis=0)
        parts = (apart - (by_pair - by_pair.mean())[:, None] * tokens) / tokens.sum()
        from_documents = (parts**2).sum() / (n - 1)
        variance = by_pair.var(ddof=1) * (n - 1) / rng.chisquare(n - 1, replicates)
        errors = errors + np.sqrt(np.maximum(variance - from_documents, 0) / n) * rng.standard_normal(replicates)
    estimate = float(by_pair.mean())
    # Basic interval: the errors of the replicates, subtracted from the estimate
    high, low = (estimate - np.quantile(errors, [0.025, 0.975])).tolist()
    p_value = float((1 + (np.abs(errors) >= abs(estimate)).sum()) / (1 + replicates))
    return PairedDifference(
        difference=Interval(estimate, min(low, estimate), max(high, estimate)),
        p_value=p_value,
        n_documents=n_documents,
        n_pairs=n,
        text=_text(estimate, low, high, p_value, n),
    )


def _text(estimate: float, low: float, high: float, p_value: float, n: int) -> str:
    size = f"{abs(estimate):.4f} nats ({min(abs(low), abs(high)):.4f} to {max(abs(low), abs(high)):.4f})"
    if high < 0:
        text = f"A is better by {size}."
    elif low > 0:
        text = f"B is better by {size}."
    else:
        text = f"No difference shown: A less B is {estimate:+.4f} nats ({low:+.4f} to {high:+.4f}, p = {p_value:.2f})."
    if n == 1:
        text += " One pair: the spread of seeds is not in the interval."
    return text
