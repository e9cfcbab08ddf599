import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.analysis.cka import document_minibatches, minibatch_cka, soft_alignment
from engram.errors import UserError


def unbiased_hsic(x, y):
    """Song et al., 2012, eq. 5, as it is written."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    terms = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return terms / (n * (n - 3))


def biased_cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def cka(x, y, batches=None):
    return float(minibatch_cka(x[None], y[None], batches or [np.arange(len(x))], replicates=1).mean[0])


def data(seed, n=60, d=8):
    return np.random.default_rng(seed).normal(size=(n, d)) + np.random.default_rng(seed + 1).normal(size=d)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.integers(4, 40))
def test_equal_up_to_rotation_and_scale_is_one(seed, scale, n):
    x, y = data(seed, n), data(seed + 7, n, 5)
    rotation = np.linalg.qr(data(seed + 3, 8))[0]
    assert cka(x, x) == pytest.approx(1)
    assert cka(x, scale * x @ rotation) == pytest.approx(1)
    assert cka(y, scale * x @ rotation) == pytest.approx(cka(x, y), abs=1e-9)


def test_independent_data_is_near_zero_where_the_biased_estimate_is_not():
    x, y = np.random.default_rng(0).normal(size=(2, 4096, 256))
    batches = list(np.arange(4096).reshape(-1, 256))
    assert abs(cka(x, y, batches)) < 0.02
    assert biased_cka(x[:256], y[:256]) > 0.4


def test_a_full_batch_is_the_formula_written_out():
    a, b = np.stack([data(0), data(1), data(2)]), np.stack([data(0) ** 2, data(1) + data(5)])
    got = minibatch_cka(a, b, [np.arange(60)], replicates=1).mean.reshape(3, 2)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            expected = unbiased_hsic(x, y) / np.sqrt(unbiased_hsic(x, x) * unbiased_hsic(y, y))
            assert got[i, j] == pytest.approx(expected, abs=1e-6)


def test_minibatches_are_averaged_before_the_ratio():
    x, y = data(0), data(0)[:, :3] + data(4)[:, :3]
    batches = [np.arange(0, 20), np.arange(20, 60)]
    xy, xx, yy = (np.mean([unbiased_hsic(one[b], other[b]) for b in batches]) for one, other in ((x, y), (x, x), (y, y)))
    assert cka(x, y, batches) == pytest.approx(xy / np.sqrt(xx * yy), abs=1e-9)
    means = minibatch_cka(x[None], y[None], batches, replicates=50)
    ratios = {round(cka(x, y, [b]), 9) for b in batches}
    assert ratios < {round(float(value), 9) for value in means.replicates[:, 0]}


def test_one_minibatch_has_no_interval_and_constant_states_no_similarity():
    x = data(0)
    assert np.isnan(minibatch_cka(x[None], x[None], [np.arange(60)]).replicates).all()
    assert np.isnan(cka(x, np.ones((60, 3))))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=60), st.integers(1, 20), st.integers(0, 5))
def test_minibatches_hold_whole_documents(document, size, seed):
    document = np.array(document)
    batches = document_minibatches(document, size, seed)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(document)))
    assert min(map(len, batches)) >= min(max(size, 4), len(document))
    in_batch = [set(document[batch]) for batch in batches]
    assert sum(map(len, in_batch)) == len(set(document))


def test_too_few_tokens():
    with pytest.raises(UserError, match=r"^there are 3 tokens to compare; CKA needs at least 4: give more spans$"):
        document_minibatches(np.arange(3))


def test_soft_alignment_by_hand():
    column = np.array([0.1, 0.5, 0.9, 0.3, 0.2, 0.8, 0.4])
    index = soft_alignment(np.stack([column, np.eye(7)[4]], axis=1))
    assert index[0] == pytest.approx((1 * 0.5 + 2 * 0.9 + 3 * 0.3 + 5 * 0.8 + 6 * 0.4) / (0.5 + 0.9 + 0.3 + 0.8 + 0.4))
    assert index[1] == 4
    assert soft_alignment(np.array([[-0.1], [0.2], [0.2]]))[0] == pytest.approx(1.5)
    assert np.isnan(soft_alignment(np.array([[-0.1], [-0.2]]))[0])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 100))
def test_alignment_stays_between_the_layers(n_a, n_b, seed):
    similarity = np.random.default_rng(seed).uniform(-0.1, 1, (3, n_a, n_b)) + 0.2
    index = soft_alignment(similarity)
    assert index.shape == (3, n_b)
    assert ((index >= -1e-9) & (index <= n_a - 1 + 1e-9)).all()
    assert np.allclose(index[1], soft_alignment(similarity[1]))
