import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from engram.config import AttentionConfig, EngramConfig, ModelConfig, MoEConfig
from engram.model import Transformer
from engram.model.attention import rotary_tables, rotate, shift_half
from engram.model.head import mean_cross_entropy, token_cross_entropy
from engram.model.moe import MoE


def small(rho_one: bool = False, **changes) -> ModelConfig:
    return ModelConfig(
        vocab_size=97,
        width=24,
        n_layers=3,
        attention=AttentionConfig(n_heads=3, key_shift=changes.pop("key_shift", True)),
        moe=MoEConfig(n_routed_experts=7, top_k=2, expert_width=8, shared_width=10, **changes),
        engram=None if rho_one else EngramConfig(layers=(0, 2), table_sizes=(40, 50), n_heads=2, memory_dim=12),
    )


def build(config: ModelConfig, seed: int = 0) -> Transformer:
    model = Transformer(config, torch.arange(97) // 2, pad_id=3)
    model.initialise(seed)
    return model


@pytest.mark.parametrize("key_shift", [True, False])
def test_no_token_sees_its_future(key_shift):
    model = build(small(key_shift=key_shift)).eval()
    for conv in (block.engram.fusion.conv for block in model.blocks if block.engram):
        torch.nn.init.normal_(conv.weight)
    tokens = torch.randint(0, 97, (2, 20))
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 5) % 97
    before, after = model.logits(tokens), model.logits(changed)
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-5)
    assert not torch.allclose(before[:, 12], after[:, 12], atol=1e-2)


def test_equal_parts_of_two_models_start_equal():
    one, two = build(small()), build(small(rho_one=True))
    shared = dict(two.named_parameters())
    assert all(torch.equal(p, shared[name]) for name, p in one.named_parameters() if name in shared)
    assert not torch.equal(build(small(), seed=1).head.weight, one.head.weight)


def test_loss_of_an_untrained_model_is_that_of_a_guess():
    model = build(small())
    tokens = torch.randint(0, 97, (4, 33))
    assert model.loss(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(torch.tensor(97.0).log().item(), abs=0.1)


def test_fused_loss_and_gradients_equal_torch():
    hidden = torch.randn(600, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 16, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (600,))
    loss = mean_cross_entropy(hidden, weight, targets) * 3
    ours = torch.autograd.grad(loss, (hidden, weight))
    expected = F.cross_entropy(hidden @ weight.t(), targets) * 3
    theirs = torch.autograd.grad(expected, (hidden, weight))
    assert torch.allclose(loss, expected, atol=1e-12)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))
    each = token_cross_entropy(hidden, weight, targets)
    assert torch.allclose(3 * each.mean(), loss, atol=1e-12)


def test_large_logits_do_not_overflow():
    hidden, weight = torch.full((2, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    assert mean_cross_entropy(hidden, weight, torch.tensor([0, 0])).item() == 0.0


def naive_moe(moe: MoE, x: torch.Tensor) -> torch.Tensor:
    """DeepSeekMoE token by token and expert by expert."""
    out = moe.shared(x) if moe.shared is not None else torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            scores = torch.sigmoid(moe.router.weight @ x[b, t])
            chosen = (scores + moe.router.bias).topk(moe.router.top_k).indices
            gates = moe.router.route_scale * scores[chosen] / scores[chosen].sum()
            for gate, e in zip(gates, chosen, strict=True):
                g, u = (x[b, t] @ moe.experts.gate_up[e]).chunk(2)
                out[b, t] = out[b, t] + gate * ((F.silu(g) * u) @ moe.experts.out[e])
    return out


@pytest.mark.parametrize("shared", [0, 10])
def test_grouped_experts_equal_a_loop(shared):
    config = small()
    moe = MoE(config.model_copy(update={"moe": config.moe.model_copy(update={"shared_width": shared, "route_scale": 2.5})}))
    for p in moe.parameters():
        torch.nn.init.normal_(p, std=0.5)
    torch.nn.init.normal_(moe.router.bias)
    x = torch.randn(2, 9, 24, requires_grad=True)
    ours, theirs = moe(x), naive_moe(moe, x)
    assert torch.allclose(ours, theirs, atol=1e-4)
    wanted = [x, *moe.parameters()]
    for a, b in zip(torch.autograd.grad(ours.square().sum(), wanted), torch.autograd.grad(theirs.square().sum(), wanted), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def test_expert_without_tokens():
    moe = MoE(small())
    for p in moe.parameters():
        torch.nn.init.normal_(p)
    moe.router.bias[3] = -100
    moe(torch.randn(1, 6, 24)).sum().backward()
    assert moe.router.load[3] == 0
    assert moe.experts.gate_up.grad[3].abs().max() == 0


def test_bias_moves_in_training_only_and_never_enters_the_gates():
    moe = MoE(small())
    torch.nn.init.normal_(moe.router.weight)
    x = torch.randn(50, 24)
    moe.eval()
    moe(x[None])
    assert moe.router.load.sum() == 0
    moe.train()
    torch.nn.init.normal_(moe.experts.gate_up)
    torch.nn.init.normal_(moe.experts.out)
    moe(x[None])
    load = moe.router.load.clone()
    assert load.sum() == 100
    moe.router.update_bias()
    assert torch.equal(moe.router.bias, 0.005 * (load.mean() - load).sign())
    weights, chosen = moe.router(x)
    scores = torch.sigmoid(x @ moe.router.weight.t()).gather(1, chosen)
    assert torch.allclose(weights, scores / scores.sum(1, keepdim=True), atol=1e-6)


def test_balancing_spreads_the_load():
    torch.manual_seed(0)
    moe = MoE(small(balance_step=0.005))
    torch.nn.init.normal_(moe.router.weight, std=0.2)
    x = torch.randn(400, 24) + torch.randn(24)  # a common direction overloads some experts

    def spread() -> float:
        load = torch.bincount(moe.router(x)[1].flatten(), minlength=7).float()
        return float(load.max() / load.mean())

    before = spread()
    for _ in range(200):
        moe.router.count(torch.bincount(moe.router(x)[1].flatten(), minlength=7))
        moe.router.update_bias()
    assert before > 2
    assert spread() < 1.3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10), st.integers(0, 30))
def test_rotary_scores_depend_on_distance_only(distance, offset):
    torch.manual_seed(1)
    q, k = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    cos, sin = (t.double() for t in rotary_tables(8, 50, 10_000.0, torch.device("cpu")))

    def score(i: int, j: int) -> torch.Tensor:
        return rotate(q, cos[i], sin[i]) @ rotate(k, cos[j], sin[j])

    assert torch.allclose(score(offset + distance, offset), score(distance, 0), atol=1e-5)


def test_key_shift_moves_half_of_the_channels_by_one():
    keys = torch.arange(1.0, 49).view(1, 1, 6, 8)
    shifted = shift_half(keys)
    moved = (shifted[0, 0, 1:] == keys[0, 0, :-1]).all(0)
    kept = (shifted == keys).all(2)[0, 0]
    assert moved.sum() == kept.sum() == 4
    assert (moved ^ kept).all()
    assert (shifted[0, 0, 0, moved] == 0).all()
    assert torch.equal(moved[:4], moved[4:]), "rotary pairs stay whole"


def test_leading_dense_layers():
    config = small(n_dense_layers=2, dense_width=12)
    model = build(config)
    assert [hasattr(block.feed_forward, "experts") for block in model.blocks] == [False, False, True]


def test_compression_of_the_wrong_length():
    with pytest.raises(ValueError, match="compression has 5 ids"):
        Transformer(small(), torch.arange(5))
