import numpy as np
import pytest
import torch

from engram.analysis.logit_lens import divergence_by_layer, states_at
from engram.analysis.windows import reading_windows


def probed(length=8):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 97, n) for n in (30, 5, 12)]
    document, position = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 9, 29, 4, 0, 11])
    return documents, document, position, reading_windows(documents, document, position, length)


@pytest.mark.parametrize("branches", [1, 4])
@torch.no_grad()
def test_two_layers_by_hand(build, branches):
    model = build("engram-v4.1" if branches == 4 else "none", branches=branches, n_layers=3 if branches == 4 else 2)
    documents, document, position, windows = probed(length=64)  # whole documents
    found = divergence_by_layer(model, states_at(model, windows))
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output.value()[0, -1]))
    for column, (number, place) in enumerate(zip(document, position, strict=True)):
        seen.clear()
        logits = model.logits(torch.from_numpy(documents[number][None, : place + 1]))[0, -1]
        for layer, hidden in enumerate(seen):
            state = hidden[0] if model.merge is None else model.merge(hidden[None, None])[0, 0]
            normed = state / (state.square().mean() + 1e-6).sqrt() * model.norm.weight
            own, final = (model.head.weight @ normed).double().softmax(0), logits.double().softmax(0)
            by_hand = (own * (own.log() - final.log())).sum().item()
            assert found[layer, column] == pytest.approx(by_hand, abs=2e-6)


def test_no_divergence_at_the_last_layer_and_some_before(build):
    model = build()
    divergence = divergence_by_layer(model, states_at(model, probed()[3]))
    assert divergence.shape == (3, 6)
    assert (divergence[-1] == 0).all()
    assert (divergence[:-1] > 0).all()


def test_states_do_not_depend_on_the_batch(build, monkeypatch):
    model, windows = build(), probed()[3]
    together = states_at(model, windows)
    monkeypatch.setattr("engram.analysis.logit_lens.PASS_TOKENS", 1)
    assert torch.allclose(states_at(model, windows), together, atol=1e-6)
