import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.config.model import LatentAttentionConfig, ModelConfig, MoEConfig, MultiHeadAttentionConfig
from engram.memory.designs.engram import Engram
from engram.memory.designs.registry import DESIGNS
from engram.model import Transformer
from engram.model.moe import RoutedExperts
from engram.scaling.accounting import count_parameters, model_flops_per_token, table_rows, train_flops_per_token
from engram.scaling.allocation import allocate, baseline, memory_template
from engram.scaling.ladder import LADDER
from engram.scaling.presets import PRESETS


def built_counts(model: Transformer) -> dict[str, int]:
    """Parameters of a built module, grouped by the names of its parts."""
    parts = {
        "embedding": ("embedding.", "head."),
        "memory_tables": ("lookup.",),
        "memory_weights": (".memory.", "embedding_memory."),
        "hyper_connections": ("_connection.", "merge."),
        "attention": (".attention.",),
        "router": (".router.",),
        "routed_experts": (".experts.",),
        "shared_experts": (".shared.",),
        "norms": ("norm.",),
        "dense": (".feed_forward.",),
    }
    groups = dict.fromkeys(parts, 0)
    for name, p in model.named_parameters():
        dotted = f".{name}" if name.startswith("embedding_memory") else name
        group = next(g for g, marks in parts.items() if any(dotted.startswith(m) if g == "embedding" else m in dotted for m in marks))
        groups[group] += p.numel()
    return groups


def assert_counted(config: ModelConfig) -> None:
    ids = torch.arange(config.vocab_size)
    with torch.device("meta"):
        model = Transformer(config, ids)
    built, counts = built_counts(model), count_parameters(config)
    assert built == {group: getattr(counts, group) for group in built}
    assert sum(built.values()) == counts.p_total + counts.p_embedding
    inactive_experts = sum(
        (config.moe.n_routed_experts - config.moe.top_k) * p[0].numel()
        for module in model.modules()
        if isinstance(module, RoutedExperts)
        for p in module.parameters()
    )
    memory = config.memory
    read = len(memory.sites) * memory.memory_dim if memory else 0
    assert counts.p_sparse == inactive_experts + sum(t.weight.numel() for t in model.tables()) - read


@pytest.mark.parametrize("name", ["1m", "3m", "10m", "30m"])
@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
def test_counts_equal_the_built_module_over_the_ladder(name, rho):
    size = LADDER[name]
    assert_counted(allocate(baseline(size, 512), memory_template(size), rho))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("attention", ["mha", "mla"])
@pytest.mark.parametrize("branches", [1, 4])
def test_every_design_is_counted(design, attention, branches):
    size = LADDER["10m"]
    base = baseline(size, 512, attention).model_copy(update={"branches": branches})
    assert_counted(allocate(base, memory_template(size, design), 0.4))


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_are_counted_as_built(name):
    assert_counted(PRESETS[name])


TABLE_5 = {  # total, activated, tables: paper, 4.1
    "dense-4b": (4.1e9, 3.8e9, 0),
    "moe-27b": (26.7e9, 3.8e9, 0),
    "engram-27b": (26.7e9, 3.8e9, 5.79e9),
    "engram-40b": (39.5e9, 3.8e9, 18.5e9),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_have_the_papers_counts(name):
    counts = count_parameters(PRESETS[name])
    total, active, tables = TABLE_5[name]
    assert counts.p_total + counts.p_embedding == pytest.approx(total, rel=0.01)
    assert counts.p_active == pytest.approx(active, rel=0.01)
    assert counts.p_engram == pytest.approx(tables, rel=0.01)
    assert count_parameters(PRESETS["engram-27b"]).rho == pytest.approx(0.743, abs=0.003)


def test_counting_needs_no_torch():
    """40 B parameters are counted at once, without waiting for a framework that would allocate them."""
    code = (
        "import sys; from engram.scaling.presets import PRESETS; from engram.scaling.accounting import count_parameters as c;"
        "[c(p) for p in PRESETS.values()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=40, deadline=None)
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
    branches=st.integers(1, 3),
    branch_gates=st.booleans(),
    gate=st.sampled_from(["plain", "none"]),
    query_rank=st.none() | st.integers(1, 9),
    latent=st.booleans(),
    tied=st.booleans(),
)
def test_counts_equal_the_built_module_for_any_config(
    layers, experts, shared, dense, orders, heads, conv, bias, memory, branches, branch_gates, gate, query_rank, latent, tied
):
    engram = Engram(
        layers=tuple(range(0, layers, 2)),
        table_sizes=tuple(range(7, 7 + orders)),
        n_heads=heads,
        memory_dim=4 * orders * heads,
        conv_kernel=conv,
        projection_bias=bias,
        branch_gates=branch_gates or branches == 1,
        gate=gate,
    )
    mla = LatentAttentionConfig(n_heads=3, head_dim=4, rope_dim=2, value_dim=5, kv_rank=6, query_rank=query_rank)
    config = ModelConfig(
        vocab_size=50,
        width=16,
        n_layers=layers,
        branches=branches,
        attention=mla if latent else MultiHeadAttentionConfig(n_heads=2),
        moe=MoEConfig(
            n_routed_experts=experts,
            top_k=2,
            expert_width=3,
            shared_width=shared,
            n_dense_layers=min(dense, layers),
            dense_width=5,
        ),
        memory=engram if memory else None,
        tie_embeddings=tied,
    )
    assert_counted(config)


def test_counts_by_hand():
    config = ModelConfig(
        vocab_size=10,
        width=4,
        n_layers=2,
        attention=MultiHeadAttentionConfig(n_heads=2),
        moe=MoEConfig(n_routed_experts=5, top_k=2, expert_width=3, shared_width=6),
        memory=Engram(layers=(1,), table_sizes=(4, 4), n_heads=1, memory_dim=6),
    )
    counts = count_parameters(config)
    assert table_rows(config.memory) == 5 + 7
    assert counts.memory_tables == 12 * 3
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
    engram = Engram(layers=(1, 14), table_sizes=(2_262_400, 2_262_400), n_heads=8, memory_dim=1280)
    tables = table_rows(engram) * engram.row_dim
    assert tables == pytest.approx(5.79e9, rel=1e-3)
    assert 1 - tables / (66 * 29 * 3 * 2560 * 1536) == pytest.approx(0.743, abs=1e-3)
