import pytest
import torch

from engram.config.model import ModelConfig
from engram.history import History
from engram.memory.designs.registry import DESIGNS
from engram.memory.site import MemorySite


def model_config(branches=1, **memory) -> ModelConfig:
    settings = {"design": "engram", "layers": [0], "table_sizes": [11, 13], "n_heads": 2, "memory_dim": 8, **memory}
    return ModelConfig.model_validate(
        {
            "vocab_size": 50,
            "width": 8,
            "n_layers": 2,
            "branches": branches,
            "attention": {"kind": "mha", "n_heads": 2},
            "moe": {"n_routed_experts": 3, "top_k": 1, "expert_width": 4, "shared_width": 4},
            "memory": settings,
        }
    )


def site_of(config: ModelConfig) -> MemorySite:
    assert config.memory is not None
    site = MemorySite(config.memory, config.backbone)
    for parameter in site.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return site


def test_version_4_1_is_the_papers_memory_with_a_root_and_no_convolution():
    orders = {"table_sizes": [11, 13, 17], "memory_dim": 12}
    shipped = site_of(model_config(4, design="engram-v4.1", **orders))
    paper = site_of(model_config(4, gate="signed_sqrt", conv_kernel=0, **orders))
    assert {n: p.shape for n, p in shipped.named_parameters()} == {n: p.shape for n, p in paper.named_parameters()}
    vectors, hidden = torch.randn(2, 5, 12), torch.randn(2, 5, 4, 8)
    assert torch.equal(shipped(vectors, hidden, History()), paper(vectors, hidden, History()))


def test_without_a_gate_every_value_goes_in_as_it_is():
    open_site = site_of(model_config(2, gate="none", conv_kernel=0))
    assert not any("key" in name or "query" in name for name, _ in open_site.named_parameters())
    vectors, hidden = torch.randn(2, 5, 8), torch.randn(2, 5, 2, 8)
    update = open_site(vectors, hidden, History())
    assert torch.allclose(update, (vectors @ open_site.value.T).unsqueeze(2).expand(2, 5, 2, 8), atol=1e-6)
    assert torch.equal(update, open_site(vectors, torch.randn(2, 5, 2, 8), History()))


def test_version_4_1_by_hand():
    """The gate as the published inference code writes it, branch by branch."""
    config = model_config(2, design="engram-v4.1", table_sizes=[11, 13, 17], memory_dim=12)
    site = site_of(config)
    vectors, hidden = torch.randn(12), torch.randn(2, 8)
    got = site(vectors.view(1, 1, 12), hidden.view(1, 1, 2, 8), History())[0, 0]
    value = site.value @ vectors
    for m in range(2):
        h, k = hidden[m], site.key[m] @ vectors
        dot = (h * site.query_norm[m] * site.key_norm[m] * k).sum() / 8**0.5
        dot = dot * (h.square().mean() + config.norm_eps).rsqrt() * (k.square().mean() + config.norm_eps).rsqrt()
        gate = torch.copysign(dot.abs().clamp_min(1e-6).sqrt(), dot).sigmoid()
        assert torch.allclose(got[m], gate * value, atol=1e-5)


def test_over_encoding_by_hand():
    """Each head's row has a projection of its own; their sum stands beside the token's embedding."""
    config = over_encoding()
    site = site_of(config)
    vectors, embedded = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    rows = vectors.unflatten(-1, (4, 2))
    expected = sum(rows[:, :, h] @ site.out[:, 2 * h : 2 * h + 2].T for h in range(4))
    assert torch.allclose(site(vectors, embedded, History()), expected, atol=1e-5)


def over_encoding() -> ModelConfig:
    values = model_config().model_dump()
    return ModelConfig.model_validate(
        values | {"memory": {"design": "over-encoding", "table_sizes": [11, 13], "n_heads": 2, "memory_dim": 8}}
    )


def test_values_by_hand():
    config = model_config(design="value", layers=[0, 1], memory_dim=8)
    site = site_of(config)
    vectors, x = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    gate = 2 * (x[..., :8] @ site.gate[0]).sigmoid()
    assert torch.allclose(site(vectors, x, History()), gate.unsqueeze(-1) * (vectors @ site.out.T), atol=1e-5)


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_fit_every_shape(name):
    for layers in range(1, 30):
        memory = DESIGNS[name].for_shape(64, layers)
        assert memory.design == name
        assert all(0 <= layer < layers for layer in memory.sites)


def test_the_layers_that_were_published():
    assert DESIGNS["engram"].for_shape(2560, 30).sites == (1, 15)
    assert DESIGNS["engram-v4.1"].for_shape(5120, 40).sites == (1, 14)
    assert DESIGNS["engram-v4.1"].for_shape(5120, 40).memory_dim == 24 * 256
    assert DESIGNS["value"].for_shape(1536, 24).sites == (3, 7, 11, 15)
    assert DESIGNS["value"].for_shape(1536, 24).memory_dim == 128
