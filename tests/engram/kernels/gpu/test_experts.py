import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
from engram.kernels import expert_ops
from engram.kernels.gpu import grouped_products
from engram.model.moe import RoutedExperts
from tests.engram.kernels.gpu.compare import compare, numbers

SHAPES = [(37, 4, 24, 144, 5), (70, 2, 40, 24, 3), (3, 1, 24, 64, 20), (70, 2, 72, 16, 1)]
"""Tokens, experts of each, width of an expert, width, experts."""


def _check(device: torch.device, n: int, k: int, w: int, d: int, experts: int) -> None:
    drawn = torch.Generator().manual_seed(3)
    chosen = torch.rand(n, experts, generator=drawn).topk(k).indices if experts > 1 else torch.zeros(n, k, dtype=torch.int64)
    if experts > 4:
        chosen[chosen == 2] = 1  # an expert without tokens
    chosen = chosen.to(device)
    module = RoutedExperts(experts, d, w).to(device)

    def mixture(x: Tensor, gate_up: Tensor, out: Tensor, weights: Tensor) -> Tensor:
        del module.gate_up, module.out
        module.gate_up, module.out = gate_up, out  # type: ignore[assignment]
        mixed, load, _ = module(x, weights, chosen)
        assert load.dtype == torch.int64
        assert load.tolist() == torch.bincount(chosen.flatten(), minlength=experts).tolist()
        return mixed

    weights = torch.rand(n, k, generator=drawn)
    inputs = numbers(n, d), numbers(experts, d, 2 * w, seed=1, scale=0.2), numbers(experts, w, d, seed=2), weights
    compare(mixture, *inputs, device=device)


@pytest.mark.parametrize("shape", SHAPES)
def test_routed_experts(device: torch.device, shape: tuple[int, ...]):
    _check(device, *shape)


def test_rows_are_split_among_programs(device: torch.device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grouped_products, "_SPLIT_ROWS", 16)
    _check(device, 90, 2, 24, 32, 3)


def test_large_tiles(device: torch.device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engram.kernels.gpu.experts.row_block", lambda *_: 128)
    _check(device, 150, 2, 24, 32, 2)


def test_bf16_tokens(device: torch.device):
    x = numbers(20, 32).to(device, torch.bfloat16).requires_grad_()
    gate_up, out = numbers(3, 32, 48, scale=0.2).to(device).requires_grad_(), numbers(3, 24, 32).to(device).requires_grad_()
    chosen = torch.arange(40, device=device).view(20, 2) % 3
    with torch.autocast(device.type, torch.bfloat16):
        done = expert_ops.routed_experts(x, gate_up, out, torch.ones(20, 2, device=device), chosen)
        assert done is not None
    assert done[0].dtype == torch.bfloat16
    grads = torch.autograd.grad(done[0].sum(), (x, gate_up, out))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32, torch.float32]
    with torch.no_grad():  # nothing is kept for a way back
        again = expert_ops.routed_experts(x, gate_up, out, torch.ones(20, 2, device=device), chosen)
    assert again is not None
    assert again[0].dtype == torch.float32
    torch.testing.assert_close(again[0], done[0].float(), rtol=0.05, atol=0.05)
