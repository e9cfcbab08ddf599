import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.config import ModelConfig
from engram.designs.registry import DESIGNS
from engram.history import History
from engram.memory.fusion import gate_keys, gated_values, gates, short_conv
from engram.memory.hashing import NgramHash
from engram.memory.module import MemoryLookup, MemorySite
from engram.memory.tables import EmbeddingTables


def make_hash(vocab=50, pad=0):
    return NgramHash(layers=(1, 4), table_sizes=(31, 37), n_heads=3, compressed_vocab_size=vocab, pad_id=pad, seed=5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 49), min_size=1, max_size=12), st.integers(0, 11), st.integers(1, 49))
def test_an_index_depends_on_the_last_n_tokens_only(ids, position, change):
    tokens = torch.tensor([ids])
    hashing = make_hash()
    before = hashing(tokens)
    position %= len(ids)
    changed = tokens.clone()
    changed[0, position] = (changed[0, position] + change) % 50
    differs = (hashing(changed) != before).flatten(3).any(0).any(-1)[0]  # [T]
    assert not differs[:position].any()
    assert not differs[position + 3 :].any()


def test_indices_stay_inside_their_tables():
    hashing = make_hash()
    indices = hashing(torch.randint(0, 50, (4, 100)))
    assert indices.shape == (2, 4, 100, 6)
    assert (indices >= 0).all()
    assert (indices < hashing.head_sizes[:, None, None, :]).all()


def test_no_overflow_with_the_largest_vocabulary():
    vocab = 2**31 - 1
    hashing = make_hash(vocab)
    ids = torch.full((1, 5), vocab - 1)
    exact = int(ids[0, 0]) * int(hashing.multipliers[0, 0])
    assert exact < 2**63
    assert (hashing(ids) >= 0).all()


def test_positions_before_the_start_are_the_pad_id():
    with_pad = make_hash(pad=7)
    first = with_pad(torch.tensor([[3, 9]]))
    later = with_pad(torch.tensor([[7, 7, 3, 9]]))
    assert torch.equal(first, later[:, :, 2:])


def test_tables_read_the_rows_and_give_gradients_by_row():
    tables = EmbeddingTables([5, 7], row_dim=3)
    torch.nn.init.normal_(tables.weight)
    indices = torch.tensor([[[0, 6], [4, 6]]])  # [1, T, H]
    tables.train()
    out = tables(indices)
    expected = torch.cat([tables.weight[[0, 4]], tables.weight[[11, 11]]], dim=-1)
    assert torch.equal(out[0], expected)
    out.sum().backward()
    ((rows, leaf),) = tables.touched
    assert rows.tolist() == [0, 4, 11]
    assert leaf.grad[:, 0].tolist() == [1.0, 1.0, 2.0]
    assert tables.weight.grad is None
    tables.clear()
    assert torch.equal(tables.eval()(indices), out)
    assert tables.touched == []


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
    site = MemorySite(model_config(branches=2))
    weights = {name: torch.randn_like(p) for name, p in site.named_parameters()}
    vectors, hidden = torch.randn(1, 5, 8), torch.randn(1, 5, 2, 8)
    keys = gate_keys(weights, vectors)
    logit = gates(weights, keys, hidden, "plain", 1e-6).logit()
    assert torch.allclose(gates(weights, keys, hidden, "signed_sqrt", 1e-6).logit(), logit.sign() * logit.abs().sqrt(), atol=1e-4)
    alpha = gates(weights, keys, hidden, "plain", 1e-6)
    values = vectors @ weights["value"].T
    assert torch.allclose(gated_values(weights, vectors, hidden, "plain", 1e-6), alpha.unsqueeze(-1) * values.unsqueeze(2), atol=1e-6)


def site_of(config: ModelConfig) -> MemorySite:
    site = MemorySite(config)
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


def test_layers_of_the_value_design_share_rows_and_take_slices():
    config = model_config(design="value", layers=[0, 1], memory_dim=8)
    lookup = MemoryLookup(config.memory, torch.arange(50), 0).eval()
    assert len(lookup.tables) == 1
    table = lookup.tables[0].weight
    torch.nn.init.normal_(table)
    tokens = torch.randint(0, 50, (2, 5))
    one, two = lookup(tokens, History())
    rows = table[lookup.hash(tokens)[0] + lookup.tables[0].offsets]  # [B, T, H, 2 slices of 2]
    assert torch.equal(one, rows[..., :2].flatten(-2))
    assert torch.equal(two, rows[..., 2:].flatten(-2))


@pytest.mark.parametrize("name", DESIGNS)
def test_raw_ids_are_hashed_on_request(name):
    memory = DESIGNS[name].for_shape(48, 6)
    folded = torch.arange(50) // 2
    compressed, raw = (MemoryLookup(memory.model_copy(update={"compression": on}), folded, 0) for on in (True, False))
    assert compressed.compression.max() == 24
    assert raw.compression.tolist() == list(range(50))


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
