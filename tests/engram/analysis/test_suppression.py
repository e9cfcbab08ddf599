import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from engram.analysis.suppression import suppressed, suppressed_losses
from engram.errors import UserError
from engram.model.generation import generate
from engram.training.validation import Validator

DESIGNS = ["engram", "engram, root", "engram, biased", "engram, no gate", "engram, one gate", "engram-v4.1", "over-encoding", "value"]


def emptied(model):
    """A copy whose tables and projections give zero."""
    model = copy.deepcopy(model)
    for name, weight in model.named_parameters():
        if "tables" in name or name.endswith((".value", ".value_bias", "memory.out")):
            weight.data.zero_()
    return model


@pytest.mark.parametrize(
    ("memory", "branches"), [*((name, 4) for name in DESIGNS), *((name, 1) for name in DESIGNS if "one gate" not in name)]
)
@torch.no_grad()
def test_as_if_tables_and_projections_gave_zero(build, memory, branches):
    model, tokens = build(memory, branches), torch.randint(0, 97, (3, 14), generator=torch.Generator().manual_seed(0))
    before, expected = model.logits(tokens), emptied(model).logits(tokens)
    with suppressed(model) as off:
        assert off is model
        assert torch.allclose(model.logits(tokens), expected, atol=1e-6)
    assert torch.equal(model.logits(tokens), before)
    assert not torch.allclose(before, expected, atol=1e-2)


def test_generation_without_the_memory(build):
    model = build("engram", 4)
    expected = generate(emptied(model), [[5, 6], [7, 8, 9]], 8, end_id=96)
    with suppressed(model):
        assert generate(model, [[5, 6], [7, 8, 9]], 8, end_id=96) == expected
    assert generate(model, [[5, 6], [7, 8, 9]], 8, end_id=96) != expected


def test_the_memory_comes_back_after_an_error(build):
    model = build()
    with pytest.raises(KeyError), suppressed(model):
        raise KeyError
    assert not any(module._forward_hooks for module in model.modules())


def test_losses_with_the_memory_on_and_off(restore, code_corpus):
    restored = restore(code_corpus, "engram-v4.1", branches=4)
    found = suppressed_losses(restored, code_corpus, replicates=50)
    assert not restored.model.training
    assert [losses.name for losses in found] == ["all", "token frequency", "2-gram seen", "3-gram seen", "4-gram seen"]
    validator = Validator(code_corpus, restored.trial.train)
    whole = found[0]
    assert whole.on.estimate[0] == pytest.approx(validator.validate(restored.model, nullcontext()).loss, abs=1e-6)
    assert whole.off.estimate[0] == pytest.approx(validator.validate(emptied(restored.model), nullcontext()).loss, abs=1e-6)
    for losses in found:
        on, off, n = losses.on.estimate, losses.off.estimate, losses.n_tokens
        assert np.allclose(losses.difference.estimate, off - on, equal_nan=True)
        assert np.allclose(losses.retained.estimate, np.exp(on - off), equal_nan=True)
        assert np.array_equal(np.isnan(on), n == 0)
        assert len(losses.labels) == len(n)
    assert found[1].n_tokens.sum() == whole.n_tokens[0]
    assert np.nansum(found[1].on.estimate * found[1].n_tokens) / whole.n_tokens[0] == pytest.approx(whole.on.estimate[0])
    width = whole.difference.high - whole.difference.low
    assert width < whole.off.high - whole.off.low + whole.on.high - whole.on.low


def test_fewer_tokens(restore, code_corpus):
    restored = restore(code_corpus, "value")
    assert suppressed_losses(restored, code_corpus, max_tokens=100, replicates=5)[0].n_tokens.tolist() == [96]


def test_a_model_without_memory(restore, build, code_corpus):
    with pytest.raises(UserError, match="the model has no memory"), suppressed(build("none")):
        pass
    with pytest.raises(UserError, match="the model has no memory"):
        suppressed_losses(restore(code_corpus, "none"), code_corpus)
