import pytest
import torch

from engram.analysis.capture import layer_states, memory_sites, site_inputs
from engram.errors import UserError


@pytest.mark.parametrize("branches", [1, 4])
@torch.no_grad()
def test_the_last_state_makes_the_models_own_prediction(build, branches):
    model = build(branches=branches)
    tokens = torch.randint(0, 97, (2, 11))
    states = layer_states(model, tokens)
    assert [state.shape for state in states] == [(2, 11, 24)] * 3
    assert torch.allclose(model.norm(states[-1]) @ model.head_weight.T, model.logits(tokens), atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


@torch.no_grad()
def test_states_after_one_layer_are_those_of_a_model_that_ends_there(build):
    model, tokens = build("none", branches=4), torch.randint(0, 97, (1, 9))
    first = layer_states(model, tokens)[0]
    shorter = build("none", branches=4, n_layers=1)
    shorter.load_state_dict({name: weight for name, weight in model.state_dict().items() if name in shorter.state_dict()})
    assert torch.allclose(shorter.norm(first), shorter(tokens), atol=1e-6)


@torch.no_grad()
def test_inputs_of_a_site_give_its_output_again(build):
    model, tokens = build("over-encoding"), torch.randint(0, 97, (2, 7))
    sites = memory_sites(model)
    ((vectors, stream),) = site_inputs(model, tokens, sites)
    assert torch.equal(stream, model.embedding(tokens))
    assert vectors.shape == (2, 7, 12)
    assert list(sites) == [0]


def test_layers_without_memory(build):
    with pytest.raises(UserError, match=r"^layer 1 has no memory; the layers with memory are 0, 2$"):
        memory_sites(build("engram"), [2, 1])
    with pytest.raises(UserError, match=r"^the model has no memory \(design none, rho = 1\); this takes a model with memory$"):
        memory_sites(build("none"))
    assert list(memory_sites(build("value"), [2])) == [2]
