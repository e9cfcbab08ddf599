from typing import Any

import pytest
import torch

from engram.config.model import ModelConfig
from engram.history import History
from engram.model import Transformer
from engram.model.hyperconnection import HyperConnection
from engram.model.rotary import rotary_tables
from engram.scaling.accounting import count_parameters

DESIGN_SETTINGS = {
    "engram": {"layers": [0, 2], "table_sizes": [40, 50]},
    "engram-v4.1": {"layers": [0, 2], "table_sizes": [40, 50, 60]},
    "over-encoding": {"table_sizes": [40, 50]},
    "value": {"layers": [0, 2], "table_sizes": [40, 50]},
}


ATTENTIONS = {
    "mha": {"n_heads": 3},
    "mla": {"n_heads": 3, "head_dim": 8, "rope_dim": 4, "value_dim": 8, "kv_rank": 12},
}


def small(
    design: str = "engram",
    branches: int = 1,
    attention: str = "mha",
    key_shift: bool = True,
    table_init_std: float = 0.02,
    memory: dict[str, Any] | None = None,
    **moe: Any,
) -> ModelConfig:
    settings = {"n_heads": 2, "memory_dim": 12, **DESIGN_SETTINGS.get(design, {}), **(memory or {})}
    return ModelConfig.model_validate(
        {
            "vocab_size": 97,
            "width": 24,
            "n_layers": 3,
            "branches": branches,
            "attention": {"kind": attention, "key_shift": key_shift, **ATTENTIONS[attention]},
            "moe": {"n_routed_experts": 7, "top_k": 2, "expert_width": 8, "shared_width": 10, **moe},
            "memory": {"design": design, **(settings if design != "none" else {})},
            "table_init_std": table_init_std,
        }
    )


def build(config: ModelConfig, seed: int = 0) -> Transformer:
    model = Transformer(config, torch.arange(97) // 2, pad_id=3)
    model.initialise(seed)
    return model


@pytest.mark.parametrize("key_shift", [True, False])
@pytest.mark.parametrize("branches", [1, 4])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("design", DESIGN_SETTINGS)
def test_no_token_sees_its_future(design, attention, branches, key_shift):
    model = build(small(design, branches, attention, key_shift, table_init_std=1.0)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".conv"):
            torch.nn.init.normal_(parameter)
    tokens = torch.randint(0, 97, (2, 20))
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 5) % 97
    before, after = model.logits(tokens), model.logits(changed)
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-5)
    assert not torch.allclose(before[:, 12], after[:, 12], atol=1e-2)


@pytest.mark.parametrize("branches", [1, 4])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("design", DESIGN_SETTINGS)
def test_an_empty_memory_changes_no_logit(design, attention, branches):
    """Tables at zero, the convolution as it starts: adding the memory is adding nothing."""
    tokens = torch.randint(0, 97, (2, 20))
    without = build(small("none", branches, attention)).logits(tokens)
    assert torch.equal(build(small(design, branches, attention, table_init_std=0.0)).logits(tokens), without)
    assert not torch.equal(build(small(design, branches, attention, table_init_std=1.0)).logits(tokens), without)


@pytest.mark.parametrize("design", ["none", "engram"])
def test_one_branch_is_the_plain_residual_stream_bit_for_bit(design):
    model = build(small(design))
    tokens = torch.randint(0, 97, (2, 20))
    hidden = model.embedding(tokens)
    vectors = dict(zip(model.config.memory.sites, model.lookup(tokens, History()), strict=True)) if model.lookup else {}
    rotary = rotary_tables(model.config.attention.rope, 8, torch.arange(20))
    for layer, block in enumerate(model.blocks):
        if layer in vectors:
            hidden = hidden + block.memory(vectors[layer], hidden.unsqueeze(2), History()).squeeze(2)
        hidden = hidden + block.attention(block.attention_norm(hidden), rotary, None, History())
        hidden = hidden + block.feed_forward(block.feed_forward_norm(hidden))
    assert torch.equal(model(tokens), model.norm(hidden))
    assert not any("connection" in name or "merge" in name for name, _ in model.named_parameters())


def test_four_branches_start_nearly_as_one():
    tokens = torch.randint(0, 97, (2, 20), generator=torch.Generator().manual_seed(0))  # some others send a token to another expert
    one, four = build(small("none")).logits(tokens), build(small("none", branches=4)).logits(tokens)
    assert 0 < (one - four).abs().max() < 0.1 * one.std()


def test_one_table_and_value_for_all_branches_and_a_key_for_each():
    one, four = (count_parameters(small("engram", branches)) for branches in (1, 4))
    assert one.memory_tables == four.memory_tables
    config = small("engram", branches=4)
    sites = [block.memory for block in build(config).blocks if block.memory is not None]
    assert [tuple(site.key.shape) for site in sites] == [(4, 24, 12)] * 2
    assert [tuple(site.value.shape) for site in sites] == [(24, 12)] * 2


def test_without_gates_by_branch_a_hyper_connection_stands_around_the_memory():
    model = build(small("engram", branches=4, memory={"branch_gates": False}))
    sites = [block for block in model.blocks if block.memory is not None]
    assert all(isinstance(block.memory_connection, HyperConnection) for block in sites)
    assert [tuple(block.memory.key.shape) for block in sites] == [(1, 24, 12)] * 2
    tokens = torch.randint(0, 97, (2, 21))
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    assert all(block.memory.key.grad.abs().max() > 0 for block in sites)


@pytest.mark.parametrize("small_products", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("design", DESIGN_SETTINGS)
@pytest.mark.filterwarnings("error")
def test_bf16_autocast_changes_little(design, attention, small_products, monkeypatch):
    """With experts and attention heads in bf16 too, as where the hardware multiplies small matrices in it."""
    model = build(small(design, 4, attention, table_init_std=0.5)).train()
    tokens = torch.randint(0, 97, (2, 21))
    exact = model.loss(tokens[:, :-1], tokens[:, 1:])
    for module in ("attention", "moe"):
        monkeypatch.setattr(f"engram.model.{module}.small_product_dtype", lambda x: small_products)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    assert loss.item() == pytest.approx(exact.item(), abs=0.05)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad and p.grad is not None)


def test_tied_embeddings_are_one_matrix_that_starts_as_both():
    config = small("none").model_copy(update={"tie_embeddings": True})
    model = build(config)
    tokens = torch.randint(0, 97, (4, 33))
    assert "head.weight" not in dict(model.named_parameters())
    loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(torch.tensor(97.0).log().item(), abs=0.1)
    loss.backward()
    assert model.embedding.weight.grad.abs().max() > 0


def test_equal_parts_of_two_models_start_equal():
    one, two = build(small()), build(small("none"))
    shared = dict(two.named_parameters())
    assert all(torch.equal(p, shared[name]) for name, p in one.named_parameters() if name in shared)
    assert not torch.equal(build(small(), seed=1).head.weight, one.head.weight)


def test_loss_of_an_untrained_model_is_that_of_a_guess():
    model = build(small())
    tokens = torch.randint(0, 97, (4, 33))
    assert model.loss(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(torch.tensor(97.0).log().item(), abs=0.1)


def test_leading_dense_layers():
    config = small(n_dense_layers=2, dense_width=12)
    model = build(config)
    assert [hasattr(block.feed_forward, "experts") for block in model.blocks] == [False, False, True]


def test_compression_of_the_wrong_length():
    with pytest.raises(ValueError, match="compression has 5 ids"):
        Transformer(small(), torch.arange(5))
