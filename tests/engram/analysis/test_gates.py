import numpy as np
import pytest
import torch

from engram import kernels
from engram.analysis.gates import text_gates, validation_gates
from engram.corpus.dataset import validation_windows
from engram.errors import UserError
from engram.memory.site import MemorySite
from engram.model import Transformer

TEXT = "the memory of an expert and a token"


def gates_by_hand(model: Transformer, tokens: torch.Tensor) -> np.ndarray:
    """Gates [S, T, M] of one sequence from what goes into each memory, by the paper's equation 4, a token and a branch at a time."""
    inputs = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: inputs.append((module, args[0][0].double(), args[1][0].double())))
        for module in model.modules()
        if isinstance(module, MemorySite)
    ]
    with torch.no_grad():
        model(tokens[None])
    for handle in handles:
        handle.remove()
    return np.array([[_gates_of_token(site, e, h) for e, h in zip(vectors, stream, strict=True)] for site, vectors, stream in inputs])


def _gates_of_token(site: MemorySite, e: torch.Tensor, h: torch.Tensor) -> list[float]:
    if site.memory.design == "value":
        return [2 / (1 + np.exp(-float(sum(h[c] * site.gate[0, c].item() for c in range(12)))))]
    root = site.memory.design == "engram-v4.1" or site.memory.gate == "signed_sqrt"
    found = []
    for branch, hidden in enumerate(h):
        key = site.key[branch].detach().double() @ e
        query, key = (x / (x.square().mean() + 1e-6).sqrt() for x in (hidden, key))
        score = (query * site.query_norm[branch] * key * site.key_norm[branch]).sum().item() / np.sqrt(len(hidden))
        if root:
            score = np.sign(score) * np.sqrt(max(abs(score), 1e-6))
        found.append(1 / (1 + np.exp(-score)))
    return found


GATED = [("engram", 1), ("engram", 4), ("engram, root", 1), ("engram, root", 4), ("engram, one gate", 4), ("engram-v4.1", 4), ("value", 4)]


@pytest.mark.parametrize(("memory", "branches"), GATED)
def test_gates_of_a_text_by_hand(restore, tiny_corpus, memory, branches):
    restored = restore(tiny_corpus, memory, branches=branches, seq_len=64)
    found = text_gates(restored, TEXT)
    ids = restored.tokenizer.encode(TEXT).ids
    expected = gates_by_hand(restored.model, torch.tensor(ids))
    assert found.gates.shape == expected.shape
    assert np.allclose(found.gates, expected, atol=1e-5)
    assert "".join(found.tokens) == TEXT
    assert found.layers == restored.model.config.memory.sites
    assert found.gates.std() > 0.01


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not kernels.available(), reason="no compiled kernels here")
def test_gates_where_a_kernel_multiplies_them(restore, tiny_corpus):
    restored = restore(tiny_corpus, "engram", branches=4)
    with kernels.plain():
        expected = text_gates(restored, TEXT)
    assert kernels.load() is None
    assert np.allclose(text_gates(restored, TEXT).gates, expected.gates, atol=1e-5)


def test_one_layer_of_a_longer_text(restore, tiny_corpus):
    restored = restore(tiny_corpus, "engram", seq_len=16)
    text = TEXT + " " + TEXT + " " + TEXT
    both, one = text_gates(restored, text), text_gates(restored, text, layers=[2])
    assert one.layers == (2,)
    assert np.array_equal(one.gates[0], both.gates[1])
    ids = restored.tokenizer.encode(text).ids
    assert len(ids) > 20
    assert np.allclose(both.gates[:, :16], gates_by_hand(restored.model, torch.tensor(ids[:16])), atol=1e-5)
    assert np.allclose(both.gates[:, 16:24], gates_by_hand(restored.model, torch.tensor(ids[8:24]))[:, 8:], atol=1e-5)


def test_over_the_validation_split(restore, code_corpus):
    restored = restore(code_corpus, "engram", branches=4)
    found = validation_gates(restored, code_corpus, replicates=20)
    inputs = validation_windows(code_corpus, 16, 1024)[0][:, :-1]
    by_hand = np.stack([gates_by_hand(restored.model, torch.from_numpy(row)) for row in inputs])  # [n, S, T, M]
    names = ["all", "2-gram frequency", "3-gram frequency", "longest N-gram seen", "place in word"]
    assert [group.name for group in found.groups] == names
    assert np.allclose(found.groups[0].gate.estimate[..., 0], by_hand.mean(axis=(0, 2)), atol=1e-5)
    assert found.groups[0].n_tokens.tolist() == [inputs.size]
    for group, left_out in zip(found.groups[1:], (1, 2, 2, 1), strict=True):
        assert group.n_tokens.sum() == inputs.size - left_out * len(inputs)
        mean = np.nansum(group.gate.estimate * group.n_tokens, axis=-1) / group.n_tokens.sum()
        assert np.allclose(mean, by_hand[:, :, left_out:].mean(axis=(0, 2)), atol=1e-5)
    assert list(found.phrases) == [0, 2]
    best, trigram = found.phrases[2][0], {}
    for row, gate in zip(inputs, by_hand[:, 1].mean(-1), strict=True):
        for t in range(2, 16):
            trigram.setdefault(tuple(row[t - 2 : t + 1].tolist()), []).append(gate[t])
    means = {ngram: np.mean(gates) for ngram, gates in trigram.items() if len(gates) >= 5}
    expected = max(means, key=means.get)
    assert best.text == restored.tokenizer.decode(list(expected))
    assert best.gate == pytest.approx(means[expected], abs=1e-5)
    assert best.occurrences == len(trigram[expected])


@pytest.mark.parametrize(("memory", "name"), [("engram, no gate", "engram with gate none"), ("over-encoding", "over-encoding")])
def test_designs_without_a_gate(restore, tiny_corpus, memory, name):
    for call in (lambda r: text_gates(r, TEXT), lambda r: validation_gates(r, tiny_corpus)):
        with pytest.raises(UserError) as caught:
            call(restore(tiny_corpus, memory))
        expected = f"memory design {name} has no gate; engram (gate plain or signed_sqrt), engram-v4.1 and value have one"
        assert str(caught.value) == expected


def test_mistakes(restore, tiny_corpus):
    for text, n in (("the", 2), ("", 0)):
        with pytest.raises(
            UserError, match=rf"^the text is too short: it has {n} of at least 3 tokens, the longest N-gram that the memory"
        ):
            text_gates(restore(tiny_corpus), text)
    with pytest.raises(UserError, match=r"^layer 1 has no memory; the layers with memory are 0, 2$"):
        text_gates(restore(tiny_corpus), TEXT, [1])
    with pytest.raises(UserError, match="the model has no memory"):
        text_gates(restore(tiny_corpus, "none"), TEXT)
    for what in ("tokenizer", "corpus"):
        other = restore(tiny_corpus, **{f"{what}_fingerprint": "f" * 64})
        with pytest.raises(UserError, match=f"^checkpoint checkpoint was trained with {what} f{{12}}, this corpus has"):
            validation_gates(other, tiny_corpus)
