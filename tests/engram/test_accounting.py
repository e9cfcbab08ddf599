import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.accounting import count_parameters, model_flops_per_token, table_rows, train_flops_per_token
from engram.allocation import allocate, baseline, memory_template
from engram.config import AttentionConfig, EngramConfig, ModelConfig, MoEConfig
from engram.ladder import LADDER
from engram.model import Transformer
from engram.model.moe import RoutedExperts


def built_counts(model: Transformer) -> dict[str, int]:
    """Parameters of a built module, grouped by the names of its parts."""
    groups = dict.fromkeys(("embedding", "attention", "router", "shared", "routed", "dense", "norms", "fusion", "tables"), 0)
    for name, p in model.named_parameters():
        if name.startswith(("embedding.", "head.")):
            group = "embedding"
        elif ".engram.tables." in name:
            group = "tables"
        elif ".engram." in name:
            group = "fusion"
        elif "norm" in name:
            group = "norms"
        elif ".attention." in name:
            group = "attention"
        elif ".router." in name:
            group = "router"
        elif ".experts." in name:
            group = "routed"
        elif ".shared." in name:
            group = "shared"
        else:
            group = "dense"
        groups[group] += p.numel()
    return groups


def assert_counted(config: ModelConfig) -> None:
    model = Transformer(config)
    built, counts = built_counts(model), count_parameters(config)
    assert built == {
        "embedding": counts.embedding,
        "attention": counts.attention,
        "router": counts.router,
        "shared": counts.shared_experts,
        "routed": counts.routed_experts,
        "dense": counts.dense,
        "norms": counts.norms,
        "fusion": counts.engram_fusion,
        "tables": counts.engram_tables,
    }
    assert sum(built.values()) == counts.p_total + counts.p_embedding
    inactive_experts = sum(
        (config.moe.n_routed_experts - config.moe.top_k) * p[0].numel()
        for module in model.modules()
        if isinstance(module, RoutedExperts)
        for p in module.parameters()
    )
    unread_rows = sum(t.weight.numel() - config.engram.memory_dim for t in model.tables()) if config.engram else 0
    assert counts.p_sparse == inactive_experts + unread_rows


@pytest.mark.parametrize("name", ["1m", "3m", "10m", "30m"])
@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
def test_counts_equal_the_built_module_over_the_ladder(name, rho):
    size = LADDER[name]
    assert_counted(allocate(baseline(size, 512), memory_template(size), rho))


@settings(max_examples=30, deadline=None)
@given(
    layers=st.integers(1, 4),
    experts=st.integers(2, 9),
    shared=st.integers(0, 5),
    dense=st.integers(0, 2),
    orders=st.integers(1, 3),
    heads=st.integers(1, 3),
    conv=st.integers(0, 4),
    bias=st.booleans(),
    memory=st.booleans(),
)
def test_counts_equal_the_built_module_for_any_config(layers, experts, shared, dense, orders, heads, conv, bias, memory):
    engram = EngramConfig(
        layers=tuple(range(0, layers, 2)),
        table_sizes=tuple(range(7, 7 + orders)),
        n_heads=heads,
        memory_dim=4 * orders * heads,
        conv_kernel=conv,
        projection_bias=bias,
    )
    config = ModelConfig(
        vocab_size=50,
        width=16,
        n_layers=layers,
        attention=AttentionConfig(n_heads=2),
        moe=MoEConfig(
            n_routed_experts=experts,
            top_k=2,
            expert_width=3,
            shared_width=shared,
            n_dense_layers=min(dense, layers),
            dense_width=5,
        ),
        engram=engram if memory else None,
    )
    assert_counted(config)


def test_counts_by_hand():
    config = ModelConfig(
        vocab_size=10,
        width=4,
        n_layers=2,
        attention=AttentionConfig(n_heads=2),
        moe=MoEConfig(n_routed_experts=5, top_k=2, expert_width=3, shared_width=6),
        engram=EngramConfig(layers=(1,), table_sizes=(4, 4), n_heads=1, memory_dim=6),
    )
    counts = count_parameters(config)
    assert table_rows(config.engram) == 5 + 7
    assert counts.engram_tables == 12 * 3
    assert counts.embedding == 2 * 10 * 4
    per_layer = 4 * 16 + 5 * 4 + 3 * 4 * 6 + 2 * 4  # attention, router, shared expert, norms
    fusion = 2 * 4 * 6 + 2 * 4 + 4 * (1 + 4)  # two projections, two norms, convolution with its norm
    routed = 3 * 4 * 3
    assert counts.p_active == 2 * per_layer + 4 + fusion + 2 * 2 * routed + 6
    assert counts.p_total == 2 * per_layer + 4 + fusion + 2 * 5 * routed + 36
    assert train_flops_per_token(config) == 6 * counts.p_active
    products = 2 * (4 * 16 + 5 * 4 + 3 * 4 * 6 + 2 * routed) + 10 * 4 + 2 * 4 * 6
    assert model_flops_per_token(config, 8) == 6 * (products + 2 * 2 * 4 * 8 // 2)


def test_the_tables_of_the_paper_s_27b():
    """Paper, Table 5: 5.7 B parameters in tables; with 66 inactive experts in 29 layers, rho = 74.3 %."""
    engram = EngramConfig(layers=(1, 14), table_sizes=(2_262_400, 2_262_400), n_heads=8, memory_dim=1280)
    tables = table_rows(engram) * engram.row_dim
    assert tables == pytest.approx(5.79e9, rel=1e-3)
    assert 1 - tables / (66 * 29 * 3 * 2560 * 1536) == pytest.approx(0.743, abs=1e-3)
