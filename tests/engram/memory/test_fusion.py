import torch

from engram.history import History
from engram.memory.designs.base import Backbone
from engram.memory.designs.engram import Engram
from engram.memory.fusion import gate_keys, gated_values, gates, short_conv
from engram.memory.site import MemorySite


def test_convolution_looks_back_only_and_starts_as_nothing():
    weight = torch.zeros(2, 4, 4)
    x = torch.randn(1, 20, 2, 4)
    assert short_conv(x, weight, 3, History()).abs().max() == 0
    torch.nn.init.normal_(weight)
    changed = x.clone()
    changed[:, 10] += 1
    differs = (short_conv(x, weight, 3, History()) != short_conv(changed, weight, 3, History())).flatten(2).any(-1)[0].nonzero().flatten()
    assert differs.tolist() == [10, 13, 16, 19]


def test_convolution_equals_torch():
    weight = torch.randn(2, 3, 4, dtype=torch.float64)
    x = torch.randn(2, 9, 2, 3, dtype=torch.float64)
    padded = torch.nn.functional.pad(x.flatten(2).transpose(1, 2), (6, 0))
    flat = weight.flatten(0, 1).unsqueeze(1)  # [M d, 1, K]
    expected = torch.nn.functional.conv1d(padded, flat, dilation=2, groups=6).transpose(1, 2).view_as(x)
    assert torch.allclose(short_conv(x, weight, 2, History()), expected, atol=1e-12)


def test_a_sequence_shorter_than_the_convolution():
    x = torch.randn(1, 2, 1, 4)
    assert torch.equal(short_conv(x, torch.ones(1, 4, 4), 3, History()), x)


def test_gates_of_both_kinds():
    torch.manual_seed(0)
    memory = Engram(layers=(0,), table_sizes=(11, 13), n_heads=2, memory_dim=8)
    site = MemorySite(memory, Backbone(width=8, n_layers=2, branches=2, values_width=8, norm_eps=1e-6, residual_scale=0.5))
    weights = {name: torch.randn_like(p) for name, p in site.named_parameters()}
    vectors, hidden = torch.randn(1, 5, 8), torch.randn(1, 5, 2, 8)
    keys = gate_keys(weights, vectors)
    logit = gates(weights, keys, hidden, "plain", 1e-6).logit()
    assert torch.allclose(gates(weights, keys, hidden, "signed_sqrt", 1e-6).logit(), logit.sign() * logit.abs().sqrt(), atol=1e-4)
    alpha = gates(weights, keys, hidden, "plain", 1e-6)
    values = vectors @ weights["value"].T
    assert torch.allclose(gated_values(weights, vectors, hidden, "plain", 1e-6), alpha.unsqueeze(-1) * values.unsqueeze(2), atol=1e-6)
