"""Kernels against the plain operations."""

from collections.abc import Callable

import torch
from torch import Tensor

from engram import kernels


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Standard normal numbers, fp32."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _results(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], bf16: bool) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=bf16):
        y = function(*leaves)
    slope = numbers(*y.shape, seed=99).to(y)
    return [y.detach().float(), *(grad.float() for grad in torch.autograd.grad(y, leaves, slope))]


def _distances(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm().clamp_min(1e-2)) for a, b in zip(found, wanted, strict=True)]


def compare(function: Callable[..., Tensor], *inputs: Tensor, device: torch.device, fp32: float = 1e-5, bf16: float = 2e-2) -> None:
    """Values and all gradients: in fp32, and under autocast to bf16 (against fp32). Two runs must agree to the bit."""
    placed = tuple(x.to(device) for x in inputs)
    with kernels.plain():
        wanted = _results(function, placed, bf16=False)
    for limit, autocast in ((fp32, False), (bf16, True)):
        found = _results(function, placed, autocast)
        distances = _distances(found, wanted)
        assert max(distances) < limit, (autocast, distances)
        assert all(torch.equal(a, b) for a, b in zip(found, _results(function, placed, autocast), strict=True))
