import copy
from contextlib import nullcontext

import pytest
import torch

from engram.analysis.heads import head_losses, only_heads
from engram.errors import UserError
from engram.training.validation import Validator


def with_rows_of(model, kept):
    """A copy in which the rows of all other heads are zero."""
    model = copy.deepcopy(model)
    memory = model.config.memory
    for number, table in enumerate(model.lookup.tables):
        ends = [*table.offsets.tolist()[1:], len(table.weight)]
        for column, (first, end) in enumerate(zip(table.offsets.tolist(), ends, strict=True)):
            if (number, 2 + column // memory.n_heads, column % memory.n_heads) not in kept:
                table.weight.data[first:end] = 0
    return model


@pytest.mark.parametrize("memory", ["engram", "engram, biased", "engram-v4.1", "over-encoding", "value"])
@torch.no_grad()
def test_rows_of_other_heads_are_zero(build, memory):
    model, tokens = build(memory, 4), torch.randint(0, 97, (2, 12))
    before = model.logits(tokens)
    for kept in (frozenset(), frozenset({(0, 2, 1)}), frozenset({(0, 2, 0), (0, 3, 1)})):
        expected = with_rows_of(model, kept).logits(tokens)
        with only_heads(model, kept):
            assert torch.allclose(model.logits(tokens), expected, atol=1e-6)
    assert torch.equal(model.logits(tokens), before)


def test_each_head_alone(restore, code_corpus):
    restored = restore(code_corpus, "engram")
    found = head_losses(restored, code_corpus, replicates=50)
    assert found.heads == [(number, order, head) for number in (0, 1) for order in (2, 3) for head in (0, 1)]

    def loss(model):
        return Validator(code_corpus, restored.trial.train).validate(model, nullcontext()).loss

    every, none, alone = loss(restored.model), loss(with_rows_of(restored.model, {})), loss(with_rows_of(restored.model, {(1, 3, 0)}))
    assert float(found.all.estimate) == pytest.approx(every, abs=1e-6)
    assert float(found.none.estimate) == pytest.approx(none, abs=1e-6)
    assert found.alone.estimate[6] == pytest.approx(alone, abs=1e-6)
    assert found.share.estimate[6] == pytest.approx((none - alone) / (none - every), rel=1e-3)
    assert (found.share.low <= found.share.high).all()


def test_without_memory(restore, code_corpus):
    with pytest.raises(UserError, match="the model has no memory"):
        head_losses(restore(code_corpus, "none"), code_corpus)
