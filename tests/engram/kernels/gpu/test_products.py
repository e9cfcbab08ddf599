"""Products with weights: linear layers, feed-forward layers, routers, and the copies that they multiply."""

import pytest
import torch
from torch import Tensor

from engram import kernels
from engram.config.model import ModelConfig
from engram.kernels import expert_ops, gpu, ops
from engram.kernels.gpu.casts import once_a_step, product_copy
from engram.model.moe import MoE
from tests.engram.kernels.gpu.compare import compare, numbers


@pytest.mark.parametrize("n", [1, 37])
def test_linear(device: torch.device, n: int):
    compare(ops.linear, numbers(2, n, 24), numbers(31, 24, seed=1), device=device)
    compare(ops.linear, numbers(2, n, 24), numbers(31, 24, seed=1), numbers(31, seed=2), device=device)


def test_linear_of_what_needs_no_gradient(device: torch.device):
    x, weight = numbers(5, 24).to(device), numbers(7, 24).to(device).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16):
        y = ops.linear(x, weight)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert weight.grad.is_contiguous()


@pytest.mark.parametrize(("n", "d", "w"), [(37, 24, 16), (37, 144, 13), (1, 24, 3)])
def test_feed_forward(device: torch.device, n: int, d: int, w: int):
    weights = numbers(2 * w, d, seed=1, scale=0.2), numbers(d, w, seed=2)
    compare(ops.feed_forward, numbers(2, n, d), *weights, device=device, bf16=4e-2)

    def added(x: Tensor, gate_up: Tensor, out: Tensor, more: Tensor) -> Tensor:
        mixed = (2 * more).to(gpu.product_dtype(x))
        y = ops.feed_forward(x, gate_up, out, mixed)
        assert not kernels.enabled() or y.data_ptr() == mixed.data_ptr()
        return y

    compare(added, numbers(n, d), *weights, numbers(n, d, seed=3), device=device, bf16=4e-2)


@pytest.mark.parametrize("shared_width", [0, 13])
def test_mixture_of_experts(device: torch.device, shared_width: int):
    """The gradients of the tokens' three readers add up; the tokens come in bf16 under autocast, as from a norm."""
    moe = {"n_routed_experts": 11, "top_k": 3, "expert_width": 16, "shared_width": shared_width}
    config = ModelConfig.model_validate(
        {"vocab_size": 97, "width": 24, "n_layers": 1, "attention": {"kind": "mha", "n_heads": 3}, "moe": moe, "memory": None}
    )
    module = MoE(config).to(device)
    for i, parameter in enumerate(module.parameters()):
        parameter.data.copy_(numbers(*parameter.shape, seed=i, scale=0.3))
    x = numbers(2, 19, 24, seed=50).bfloat16().float().to(device)
    slope = numbers(2, 19, 24, seed=51).to(device)

    def results(bf16: bool) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            y = module(leaf.bfloat16() if bf16 else leaf)
        grads = torch.autograd.grad((y.float() * slope).sum(), [leaf, *module.parameters()])
        return [y.detach().float(), *grads]

    with kernels.plain():
        wanted = results(False)
    for bf16, limit in ((False, 1e-5), (True, 2e-2)):
        found = results(bf16)
        distances = [float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]
        assert max(distances) < limit, (bf16, distances)
        assert all(torch.equal(a, b) for a, b in zip(found, results(bf16), strict=True))


def test_routers_keep_their_precision(device: torch.device):
    x, weight = numbers(40, 144).bfloat16().to(device), numbers(11, 144, seed=1, scale=0.1).to(device)
    bias = torch.zeros(11, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        found, chosen, _ = expert_ops.route_tokens(x, weight, bias, 3, 1.0)
    with kernels.plain():
        wanted, expected, _ = expert_ops.route_tokens(x, weight, bias, 3, 1.0)
    dense, other = (torch.zeros(40, 11, device=device).scatter(1, c, w) for c, w in ((chosen, found), (expected, wanted)))
    torch.testing.assert_close(dense, other, rtol=1e-4, atol=1e-4)


def test_copies_of_weights():
    first, second = numbers(2, 3, 8), numbers(5, 8, seed=1)
    outside = product_copy(first, torch.bfloat16)
    with once_a_step([first, second], torch.bfloat16):
        copy = product_copy(first, torch.bfloat16)
        assert torch.equal(copy, outside)
        assert product_copy(first.flatten(0, 1), torch.bfloat16).data_ptr() == copy.data_ptr()
        part = product_copy(first[:1], torch.bfloat16)  # begins where the weight does
        assert torch.equal(part, outside[:1])
        turned = product_copy(second.t(), torch.bfloat16)
        assert torch.equal(turned, second.t().bfloat16())
        assert product_copy(second, torch.float32).data_ptr() == second.data_ptr()
    with torch.no_grad():
        first += 1
    assert torch.equal(product_copy(first, torch.bfloat16), first.bfloat16())
