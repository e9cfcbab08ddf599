"""Steps of dense weights by the kernels and by plain operations."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from engram import kernels
from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.model.moe import Router, balance
from engram.training.optimizers import muon as muon_module
from engram.training.optimizers.combined import Optimizers
from engram.training.optimizers.muon import Muon, logical_matrices
from tests.engram.kernels.gpu.compare import numbers

SMALL = {
    "attention.qkv.weight": (96, 32),
    "attention.out.weight": (32, 32),
    "shared.gate_up.weight": (40, 32),
    "shared.out.weight": (32, 20),
    "experts.gate_up": (5, 32, 20),
    "experts.out": (5, 10, 32),
    "router.weight": (7, 32),
    "long.weight": (24, 144),
    "tall.weight": (144, 24),
}
LARGE = {
    "a.qkv.weight": (3 * 144, 144),
    "a.out.weight": (144, 144),
    "b.out.weight": (144, 144),
    "experts.gate_up": (2, 160, 2 * 70),
    "experts.out": (2, 70, 160),
}


def weights(shapes: dict[str, tuple[int, ...]], device: torch.device) -> dict[str, Tensor]:
    return {name: numbers(*shape, seed=i, scale=0.2).to(device).requires_grad_() for i, (name, shape) in enumerate(shapes.items())}


def gradient(name: str, shape: tuple[int, ...], step: int, device: torch.device) -> Tensor:
    grad = numbers(*shape, seed=1000 * step + sum(map(ord, name)))
    if name.startswith("experts."):
        grad[step] = 0  # an expert that no token visits
    return grad.to(device)


def stepped(
    shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device, use: bool, factor: float = 1.0, steps: int = 2
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    trained = weights(shapes, device)
    muon = Muon(trained, 0.9, 5, 0.1, dtype)
    with nullcontext() if use else kernels.plain():
        for step in range(steps):
            for name, weight in trained.items():
                weight.grad = gradient(name, shapes[name], step, device) * (1 if use else factor)
            muon.step(0.02, torch.tensor(factor, device=device) if use else None)
    return {name: weight.detach() for name, weight in trained.items()}, muon.buffers


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon(device, shapes, dtype, monkeypatch):
    monkeypatch.setattr(muon_module, "AT_ONCE", 3 * 144 * 144)
    found, buffers = stepped(shapes, dtype, device, use=True, factor=0.5)
    wanted, plain_buffers = stepped(shapes, torch.float32, device, use=False, factor=0.5)
    again, _ = stepped(shapes, dtype, device, use=True, factor=0.5)
    for i, (name, shape) in enumerate(shapes.items()):
        torch.testing.assert_close(buffers[name], plain_buffers[name], rtol=1e-5, atol=1e-6)
        start = numbers(*shape, seed=i, scale=0.2).to(device)
        moved, expected = found[name] - start, wanted[name] - start
        assert (moved - expected).norm() < (1e-4 if dtype == torch.float32 else 0.1) * expected.norm(), name
        assert torch.equal(found[name], again[name])


def test_muon_updates_are_orthogonal(device):
    shapes = {name: shape for name, shape in SMALL.items() if not name.startswith("experts.")} | {"a.out.weight": (144, 144)}
    trained = weights(shapes, device)
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    for name, weight in trained.items():
        weight.grad = numbers(*shapes[name], seed=len(name)).to(device)
    Muon(trained, 0.9, 5, 0.0, torch.bfloat16).step(1.0)
    for name, weight in trained.items():
        change = logical_matrices(name, before[name] - weight.detach())
        values = torch.linalg.svdvals(change.float()) / (0.2 * max(change.shape[-2:]) ** 0.5)
        assert values.amax() < 1.3, name
        assert values.median() > 0.6, name


def test_muon_of_many_weights(device):
    """More of one shape than fit in a launch."""
    shapes = {f"{i}.weight": (16, 16) for i in range(18)}
    found, _ = stepped(shapes, torch.float32, device, use=True, steps=1)
    wanted, _ = stepped(shapes, torch.float32, device, use=False, steps=1)
    for name in shapes:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)


class Weights(nn.Module):
    """Matrices, norms and biases; more than a launch takes, and one that never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(24, 20 if i else 300) for i in range(17)])
        self.norm = nn.Parameter(torch.ones(9000))
        self.idle = nn.Linear(3, 5)


def config(optimizer: str, **train: float) -> TrainConfig:
    settings = {"steps": 9, "batch_size": 1, "seq_len": 8, "learning_rate": 0.01, "weight_decay": 0.1, **train}
    return TrainConfig.model_validate({"optimizer": {"kind": optimizer}, **settings})


def trained(optimizer: str, limit: float, device: torch.device, use: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    model = Weights().to(device)
    for i, parameter in enumerate(model.parameters()):
        parameter.data.copy_(numbers(*parameter.shape, seed=i, scale=0.2))
    train = config(optimizer, grad_clip=limit)
    optimizers = Optimizers(model, train)
    norms = []
    with nullcontext() if use else kernels.plain():
        for step in range(3):
            for i, (name, parameter) in enumerate(model.named_parameters()):
                if not name.startswith("idle"):
                    grad = numbers(*parameter.shape, seed=100 * step + i).to(device)
                    if optimizer == "muon" and i % 4 == 0 and grad.ndim > 1:  # the fused AdamW of PyTorch wants them as the weight lies
                        grad = grad.mT.contiguous().mT
                    parameter.grad = grad
            norms.append(optimizers.step(1.0).item())
    return dict(model.named_parameters()), optimizers.state(), norms


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("limit", [1.0, 1e9])
def test_clipped_steps(device, optimizer, limit):
    found, state, norms = trained(optimizer, limit, device, use=True)
    wanted, plain_state, plain_norms = trained(optimizer, limit, device, use=False)
    assert norms == pytest.approx(plain_norms, rel=1e-5)
    near = {"rtol": 1e-4, "atol": 1e-5 if optimizer == "adamw" else 1e-3}  # products in bf16 where the processor has them
    for name, weight in found.items():
        torch.testing.assert_close(weight, wanted[name], **near)
    assert state.keys() == plain_state.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, plain_state[name], rtol=1e-4, atol=1e-6)


def test_state_goes_on(device):
    """A checkpoint of steps with the kernels goes on with them, and without."""
    train = config("adamw")
    ends = []
    for use in (True, False):
        model = Weights().to(device)
        for i, parameter in enumerate(model.parameters()):
            parameter.data.copy_(numbers(*parameter.shape, seed=i))
        optimizers = Optimizers(model, train)
        for step in range(4):
            for i, parameter in enumerate(model.parameters()):
                parameter.grad = numbers(*parameter.shape, seed=100 * step + i).to(device)
            with nullcontext() if use or step < 2 else kernels.plain():
                optimizers.step(1.0)
            if step == 1:
                state = {name: value.clone() for name, value in optimizers.state().items()}
                optimizers = Optimizers(model, train)
                optimizers.load_state(state)
        ends.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("experts", [5, 150])
def test_balancing(device, experts):
    moe = {"n_routed_experts": experts, "top_k": 2, "expert_width": 8, "shared_width": 0}
    model = {"vocab_size": 97, "width": 24, "n_layers": 3, "attention": {"kind": "mha", "n_heads": 3}, "moe": moe}
    config = ModelConfig.model_validate(model)
    routers = [[Router(config).to(device) for _ in range(18)] for _ in range(2)]
    for ours, plain in zip(*routers, strict=True):
        for step in range(2):
            load = (numbers(experts, seed=step).abs() * 5).long().to(device)
            ours.count(load)
            with kernels.plain():
                plain.count(load)
        load = torch.full((experts,), 3, device=device)
        assert torch.equal(ours.load, plain.load)
        ours.idle_steps += 2
        plain.idle_steps += 2
    balance(routers[0])
    with kernels.plain():
        balance(routers[1])
    for ours, plain in zip(*routers, strict=True):
        for name, value in ours.named_buffers():
            assert torch.equal(value, plain.get_buffer(name)), name
