import dataclasses

import numpy as np
import pytest

from engram.analysis.depth import compare_depth
from engram.analysis.names import validation_names
from engram.analysis.spans import SpannedText
from engram.errors import UserError


@pytest.fixture(scope="module")
def texts(restore, code_corpus):
    return validation_names(restore(code_corpus), code_corpus)


def test_a_pure_moe_and_a_hybrid(restore, code_corpus, texts):
    a, b = restore(code_corpus, "none", branches=4), restore(code_corpus, "engram", branches=1)
    depth = compare_depth(a, b, texts, minibatch=16, replicates=50)
    assert depth.divergence_a.estimate.shape == depth.divergence_b.estimate.shape == (3,)
    assert depth.divergence_a.estimate[-1] == depth.divergence_b.estimate[-1] == 0
    assert depth.similarity.estimate.shape == (3, 3)
    assert depth.n_minibatches > 1
    assert depth.n_documents == len(texts)
    for estimates in (depth.divergence_a, depth.divergence_b, depth.similarity, depth.alignment):
        assert (estimates.low <= estimates.high).all()
    same = compare_depth(a, b, texts, minibatch=16, replicates=50)
    assert np.array_equal(same.similarity.low, depth.similarity.low)


def test_a_model_with_itself(restore, code_corpus, texts):
    a = restore(code_corpus, "engram")
    depth = compare_depth(a, a, texts, replicates=20)
    assert np.allclose(np.diag(depth.similarity.estimate), 1)
    assert np.allclose(depth.similarity.estimate, depth.similarity.estimate.T)
    assert np.array_equal(depth.divergence_a.estimate, depth.divergence_b.estimate)


def test_other_tokenizers(restore, code_corpus, texts):
    a, b = restore(code_corpus), restore(code_corpus, tokenizer_fingerprint="0" * 64)
    with pytest.raises(UserError, match=r"^the checkpoints have different tokenizers \(\w{12} and 0{12}\); depth compares models of one"):
        compare_depth(a, b, texts)


def test_too_few_spans(restore, code_corpus):
    a = restore(code_corpus)
    with pytest.raises(UserError, match="CKA needs at least 4"):
        compare_depth(a, a, [SpannedText("read_block", ((0, 10),))])


def test_models_of_other_sequence_lengths_read_the_same_windows(restore, code_corpus, texts):
    a, b = restore(code_corpus, seq_len=16), restore(code_corpus, seq_len=16)
    longer = dataclasses.replace(b, trial=b.trial.model_copy(update={"train": b.trial.train.model_copy(update={"seq_len": 40})}))
    expected, found = compare_depth(a, b, texts, replicates=5), compare_depth(a, longer, texts, replicates=5)
    assert np.array_equal(expected.similarity.estimate, found.similarity.estimate)
