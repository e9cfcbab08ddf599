import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engram.corpus.dataset import document_windows
from engram.evaluation import long_ppl as module
from engram.evaluation.long_ppl import ContextLosses, context_losses, long_ppl


@pytest.fixture
def model(build_model):
    return build_model(60)


@pytest.fixture
def documents():
    return np.random.default_rng(0).integers(0, 60, size=(3, 24))  # [n, T + 1]


def loss(model, context, target) -> float:
    """Of one token after some others, alone."""
    logits = model.logits(torch.tensor(context)[None])[0, -1]
    return float(torch.nn.functional.cross_entropy(logits[None], torch.tensor([target])))


@pytest.mark.parametrize(("short", "stride"), [(6, 1), (6, 4), (6, None), (22, 22), (1, 1), (8, 5)])
@torch.no_grad()
def test_losses_are_those_of_each_token_alone(model, documents, short, stride, monkeypatch):
    monkeypatch.setattr(module, "PASS_TOKENS", 50)  # several passes
    losses = context_losses(model, documents, short, nullcontext(), stride)
    step = min(stride or max(1, short // 4), 23 - short)
    for document, long_losses, short_losses in zip(documents.tolist(), losses.long, losses.short, strict=True):
        for i, (with_all, with_last) in enumerate(zip(long_losses, short_losses, strict=True)):
            read = short + i + 1
            # The windows end every `step` tokens, the last at the end of the document.
            end = min(short + step * (i // step + 1), 23)
            begin = end - short
            assert with_all == pytest.approx(loss(model, document[:read], document[read]), abs=1e-5)
            assert with_last == pytest.approx(loss(model, document[begin:read], document[read]), abs=1e-5)
            assert short - step + 1 <= read - begin <= short


def test_long_ppl_by_hand():
    long = np.array([[0.5, 1.0, 1.9, 2.1, 0.1, 1.0]])
    short = np.array([[2.6, 2.9, 4.0, 9.0, 3.1, 3.0]])  # gains 2.1, 1.9, 2.1, 6.9, 3.0, 2.0
    found = long_ppl(ContextLosses(2, long, short))
    assert found.key_tokens == 3  # the first, third and fifth: the fourth is not foreseen well enough
    assert found.key_share == pytest.approx(0.5)
    assert found.long_ppl == pytest.approx(math.exp((0.5 + 1.9 + 0.1) / 3))
    assert found.ppl == pytest.approx(math.exp(long.mean()))
    assert found.short_ppl == pytest.approx(math.exp(short.mean()))
    assert found.gain_by_position == pytest.approx([2.0, (2.1 + 6.9 + 3.0 + 2.0) / 4])  # [2, 4), [4, 8)
    assert (found.tokens, found.documents) == (6, 1)
    other = ContextLosses(2, long + 1, short)
    assert long_ppl(other, ContextLosses(2, long, short)).long_ppl == pytest.approx(math.exp(1 + (0.5 + 1.9 + 0.1) / 3))
    assert long_ppl(other, other).key_tokens == 0  # a gain of 2 is not more than 2
    assert long_ppl(ContextLosses(2, long, long)).long_ppl is None


def test_a_model_keeps_its_mode_and_its_loads(model, documents):
    for training in (True, False):
        model.train(training)
        context_losses(model, documents, 6, nullcontext())
        assert model.training is training
    assert all(router.window_load.sum() == 0 for router in model.routers())


@pytest.mark.parametrize(("short", "stride", "n"), [(0, None, 3), (23, None, 3), (6, 7, 3), (6, 0, 3), (6, None, 0)])
def test_what_can_t_be_measured(model, documents, short, stride, n):
    with pytest.raises(ValueError, match=r"stride is|documents of 23 tokens"):
        context_losses(model, documents[:n], short, nullcontext(), stride)


def test_losses_of_other_tokens_are_refused():
    with pytest.raises(ValueError, match="the reference has losses"):
        long_ppl(ContextLosses(2, np.ones((1, 3)), np.ones((1, 3))), ContextLosses(2, np.ones((2, 3)), np.ones((2, 3))))


def test_long_documents_of_a_corpus():
    lengths = [3, 5, 4, 9]  # each ends with 0
    val = np.concatenate([[*range(1, n), 0] for n in lengths]).astype(np.uint16)
    corpus = SimpleNamespace(val=val, val_doc_starts=np.cumsum([0, *lengths]), end_of_text_id=0)
    expected = [[0, 1, 2, 3, 4], [0, 1, 2, 3, 0], [0, 1, 2, 3, 4]]
    assert document_windows(corpus, 4, 100).tolist() == expected
    assert document_windows(corpus, 4, 11).tolist() == expected[:2]
    assert document_windows(corpus, 4, 1).tolist() == expected[:1]
    assert document_windows(corpus, 10, 100).shape == (0, 11)
