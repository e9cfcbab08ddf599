import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.analysis.intervals import DocumentBootstrap


def sample(seed: int, n_documents=40):
    rng = np.random.default_rng(seed)
    document = rng.integers(0, n_documents, 800) * 3 + 5
    return document, rng.normal(size=(2, 800)) + rng.normal(size=200)[document]


def test_means_over_all_and_over_chosen_tokens():
    document, values = sample(0)
    bootstrap = DocumentBootstrap(document, replicates=200)
    assert np.allclose(bootstrap.means(values).mean, values.mean(axis=1))
    chosen = values[0] > 0.3
    assert np.allclose(bootstrap.means(values, chosen).mean, values[:, chosen].mean(axis=1))


def test_an_interval_is_as_wide_as_documents_differ():
    document, values = sample(1)
    estimates = DocumentBootstrap(document, replicates=2000).means(values).estimates()
    means = np.array([values[:, document == one].mean(axis=1) for one in np.unique(document)])
    expected = 2 * 1.96 * means.std(axis=0) / np.sqrt(len(means))
    assert estimates.high - estimates.low == pytest.approx(expected, rel=0.2)
    assert (estimates.low < estimates.estimate).all()
    assert (estimates.estimate < estimates.high).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(-5, 5), st.floats(0.1, 5), st.integers(0, 5))
def test_intervals_move_and_stretch_with_the_values(shift, factor, seed):
    document, values = sample(2)
    bootstrap = DocumentBootstrap(document, replicates=100, seed=seed)
    one, other = bootstrap.means(values).estimates(), bootstrap.means(shift + factor * values).estimates()
    for name in ("estimate", "low", "high"):
        assert np.allclose(getattr(other, name), shift + factor * getattr(one, name))


def test_the_seed_decides():
    document, values = sample(3)
    one, again, other = (DocumentBootstrap(document, 50, seed).means(values).replicates for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_one_document_has_no_interval():
    document, values = sample(4)
    for found in (
        DocumentBootstrap(np.zeros(800, dtype=int)).means(values).estimates(),
        DocumentBootstrap(document).means(values, document == document[0]).estimates(),
    ):
        assert np.isfinite(found.estimate).all()
        assert np.isnan(found.low).all()
        assert np.isnan(found.high).all()


@pytest.mark.filterwarnings("error")
def test_no_token_is_no_number():
    document, values = sample(5)
    found = DocumentBootstrap(document).means(values, np.zeros(800, dtype=bool)).estimates()
    assert np.isnan(found.estimate).all()
    assert np.isnan(found.low).all()
