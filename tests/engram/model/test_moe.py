from typing import Any

import pytest
import torch
from torch.nn import functional as F

from engram.config.model import ModelConfig
from engram.model.moe import MoE


def small(**moe: Any) -> ModelConfig:
    experts = {"n_routed_experts": 7, "top_k": 2, "expert_width": 8, "shared_width": 10, **moe}
    return ModelConfig.model_validate(
        {"vocab_size": 97, "width": 24, "n_layers": 3, "attention": {"kind": "mha", "n_heads": 3}, "moe": experts}
    )


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
    assert torch.equal(moe.router.idle_steps, (load == 0).float())
    assert torch.equal(moe.router.bias, 0.005 * (load.mean() - load).sign())
    weights, chosen, _ = moe.router(x)
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
