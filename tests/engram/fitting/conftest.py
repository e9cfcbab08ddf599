import numpy as np
import pytest

from engram.fitting.results import Observations

RHOS = (0, 0.2, 0.4, 0.55, 0.7, 0.8, 0.9, 1)


def make_sweep(curve, x=RHOS, seeds=3, noise=0.006, documents=200, rng=0, between=0.03):
    """Trials of a known curve; `between` is the noise of a document in a trial."""
    rng = np.random.default_rng(rng)
    n_tokens = rng.integers(50, 1000, documents).astype(float)
    x, seed = np.repeat(np.array(x, dtype=float), seeds), np.tile(np.arange(seeds), len(x))
    loss = 3 + curve(x) + rng.normal(0, 0.01, seeds)[seed] + rng.normal(0, 1, len(x)) * noise
    loss = loss[:, None] + rng.normal(0, 0.4, documents) + rng.normal(0, 1, (len(x), documents)) * between
    return Observations(x, seed, loss * n_tokens, n_tokens)


def select(sweep, rows):
    return Observations(sweep.x[rows], sweep.seed[rows], sweep.loss_sum[rows], sweep.n_tokens)


@pytest.fixture
def sweep():
    """Builds one."""
    return make_sweep
