import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.errors import UserError
from engram.memory.designs.registry import DESIGNS
from engram.scaling.accounting import count_parameters
from engram.scaling.allocation import allocate, baseline, check_spread, memory_template, spread
from engram.scaling.ladder import LADDER

RHOS = [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1]


@pytest.mark.parametrize("size", LADDER.values(), ids=LADDER)
@pytest.mark.parametrize("vocab_size", [512, 8192, 100_000])
def test_totals_stay_equal_over_rho(size, vocab_size):
    counts = [count_parameters(allocate(baseline(size, vocab_size), memory_template(size), rho)) for rho in RHOS]
    assert spread([c.p_total for c in counts]) <= 0.005
    assert spread([c.p_active for c in counts]) <= 0.005
    assert len({c.p_embedding for c in counts}) == 1
    for rho, count in zip(RHOS, counts, strict=True):
        assert count.rho == pytest.approx(rho, abs=0.011), "half an expert of 96, and the shared width's change in P_active"


@pytest.mark.parametrize("size", LADDER.values(), ids=LADDER)
def test_the_ladder_is_as_sparse_as_the_paper(size):
    counts = count_parameters(baseline(size, 8192))
    assert 9 <= counts.p_total / counts.p_active <= 11
    assert 90 <= size.n_routed_experts <= 110


def test_the_ladder_grows():
    totals = [count_parameters(baseline(size, 8192)).p_total for size in LADDER.values()]
    assert totals == sorted(totals)
    assert totals[0] < 2e6
    assert totals[-1] > 5e9


@settings(max_examples=200, deadline=None)
@given(rho=st.floats(0, 1), name=st.sampled_from(sorted(LADDER)))
def test_any_rho_can_be_allocated(rho, name):
    size = LADDER[name]
    base = baseline(size, 8192)
    config = allocate(base, memory_template(size), rho)
    target, counts = count_parameters(base), count_parameters(config)
    assert abs(counts.p_total / target.p_total - 1) < 0.0025
    assert abs(counts.p_active / target.p_active - 1) < 0.0025
    assert config.moe.top_k <= config.moe.n_routed_experts <= base.moe.n_routed_experts


def test_only_experts_slots_and_shared_width_change():
    size = LADDER["3m"]
    base = baseline(size, 8192)
    config = allocate(base, memory_template(size), 0.5)
    same = {"moe": config.moe.model_copy(update={"n_routed_experts": 100, "shared_width": base.moe.shared_width}), "memory": None}
    assert config.model_copy(update=same) == base


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("attention", ["mha", "mla"])
@pytest.mark.parametrize("size", [LADDER[name] for name in ("1m", "3m", "30m", "6b")], ids=lambda size: size.name)
def test_every_design_is_allocated_at_equal_totals(size, attention, design):
    base = baseline(size, 8192, attention)
    counts = [count_parameters(allocate(base, memory_template(size, design), rho)) for rho in (0, 0.3, 0.75, 0.95, 1)]
    assert spread([c.p_total for c in counts]) <= 0.005
    assert spread([c.p_active for c in counts]) <= 0.005


def test_branches_are_allocated_at_equal_totals():
    size = LADDER["3m"]
    base = baseline(size, 8192).model_copy(update={"branches": 4})
    counts = [count_parameters(allocate(base, memory_template(size), rho)) for rho in (0, 0.5, 1)]
    assert spread([c.p_total for c in counts]) <= 0.005
    assert spread([c.p_active for c in counts]) <= 0.005


def test_unknown_choices_name_the_ones_there_are():
    with pytest.raises(UserError, match=r"memory design 'ngram' is unknown; there are engram, engram-v4\.1, over-encoding, value, none"):
        memory_template(LADDER["1m"], "ngram")
    with pytest.raises(UserError, match="attention kind 'gqa' is unknown; there are mha, mla"):
        baseline(LADDER["1m"], 512, "gqa")


@pytest.mark.parametrize("rho", [-0.01, 1.01, float("nan")])
def test_rho_outside_its_range(rho):
    size = LADDER["1m"]
    with pytest.raises(UserError, match="between 0"):
        allocate(baseline(size, 512), memory_template(size), rho)


def test_memory_too_large_for_the_shared_expert():
    size = LADDER["1m"]
    memory = memory_template(size).model_copy(update={"memory_dim": 4096})
    with pytest.raises(UserError, match="memory_dim"):
        allocate(baseline(size, 512), memory, 0.5)


def test_unequal_models_are_refused():
    one, two = (baseline(LADDER[name], 512) for name in ("1m", "3m"))
    with pytest.raises(UserError, match=r"p_total differs by .* between a .* and b"):
        check_spread({"a": one, "b": two})
