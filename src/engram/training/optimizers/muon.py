"""Muon: orthogonalised momentum, for many matrices at a time.

The method is that of Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon/), the scale of the updates that of Liu et al., 2025
(arXiv 2502.16982). The numbers are those of `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, which takes a single plain matrix at
a time, while an MoE layer has hundreds of small ones.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engram import kernels
from engram.kernels import gpu, optimizer_ops

if TYPE_CHECKING:
    from engram.kernels.gpu.muon import Launch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of X, (X X^T) X and (X X^T)^2 X: steep at 0, so that small singular values grow fast; large ones end up at about 0.7..1.2."""
EPS = 1e-7
AT_ONCE = 1 << 24
"""About how many numbers are orthogonalised at once: enough to keep a device busy, little compared with a large model's weights."""


def orthogonalise(stack: Tensor, iterations: int, dtype: torch.dtype) -> Tensor:
    """Bring all singular values of every matrix near 1 (Newton-Schulz): [..., a, b] -> [..., a, b] in `dtype`."""
    linear, cubic, quintic = COEFFICIENTS
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.to(dtype).reshape(-1, *stack.shape[-2:])
    x = x.mT if tall else x  # the Gram matrix is the small one
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(EPS)
    for _ in range(iterations):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return (x.mT if tall else x).reshape(stack.shape)


def product_dtype(device: torch.device) -> torch.dtype:
    """Dtype of the products in `orthogonalise`: bf16, which is exact enough, where it makes small products faster."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        in_kernel = bool(capabilities.get("avx512_bf16")) and kernels.version() != "none"
        fast = device.type == "cpu" and (in_kernel or bool(capabilities.get("amx_bf16")))
    return torch.bfloat16 if fast else torch.float32


def logical_matrices(name: str, weight: Tensor) -> Tensor:
    """View of a weight as the matrices it holds, [..., a, b]; the name tells which weights hold several.

    gate_up.weight [2 w, d] -> [2, w, d]; qkv.weight [3 d, d] -> [3, d, d]; gate_up [E, d, 2 w] -> [E, 2, d, w].
    In any other weight, all leading dimensions count matrices, as in out [E, w, d].
    """
    if name.endswith("gate_up.weight"):
        return weight.unflatten(0, (2, -1))
    if name.endswith("qkv.weight"):
        return weight.unflatten(0, (3, -1))
    if name.endswith("gate_up"):
        return weight.unflatten(-1, (2, -1)).transpose(-3, -2)
    return weight


class Muon:
    """Muon with Nesterov momentum and decoupled weight decay.

    Args:
        weights: matrices by name; the name decides how a weight splits (`logical_matrices`).
        momentum: of the running mean of gradients.
        iterations: of Newton-Schulz.
        weight_decay: weights shrink by this times the rate.
        dtype: of the products (`product_dtype`).
    """

    def __init__(self, weights: Mapping[str, Tensor], momentum: float, iterations: int, weight_decay: float, dtype: torch.dtype) -> None:
        self.weights, self.momentum, self.iterations = weights, momentum, iterations
        self.weight_decay, self.dtype = weight_decay, dtype
        self.buffers = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.groups: list[list[str]] = []
        """Names of the weights that go through `orthogonalise` together: of equal logical shape, up to `AT_ONCE` numbers or one weight."""
        open_groups: dict[torch.Size, list[str]] = {}
        for name, weight in weights.items():
            shape = logical_matrices(name, weight).shape[-2:]
            group = open_groups.get(shape)
            if group is None or sum(weights[other].numel() for other in group) + weight.numel() > AT_ONCE:
                open_groups[shape] = group = []
                self.groups.append(group)
            group.append(name)
        self._launches: dict[tuple[str, ...], list[Launch]] = {}
        """Of a GPU's kernels, by the names of the weights that have a gradient."""

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor, factor: Tensor | None = None) -> None:
        """Update all weights that have a gradient.

        Args:
            learning_rate: a number, which may be on the weights' device, fp32 [].
            factor: fp32 []: what a GPU's kernels multiply the gradients with.
        """
        grads = {name: weight.grad for name, weight in self.weights.items() if weight.grad is not None}
        if grads and all(gpu.usable(self.weights[name]) and self.weights[name].dtype == torch.float32 for name in grads):
            self._step_on_gpu(grads, learning_rate, factor)
            return
        for names in self.groups:
            self._step_group(names, learning_rate)

    def _step_on_gpu(self, grads: dict[str, Tensor], learning_rate: float | Tensor, factor: Tensor | None) -> None:
        from engram.kernels.gpu import muon as gpu_muon

        names = tuple(grads)
        if names not in self._launches:
            self._launches[names] = gpu_muon.plan([logical_matrices(name, self.weights[name]) for name in names], self.dtype, AT_ONCE)
        one = next(iter(grads.values())).new_ones(())
        rate = learning_rate if isinstance(learning_rate, Tensor) else one * learning_rate
        rule = gpu_muon.Rule(self.momentum, self.weight_decay, self.iterations, COEFFICIENTS, EPS, self.dtype)
        tensors = [self.weights[name].detach() for name in names], [self.buffers[name] for name in names], list(grads.values())
        for launch in self._launches[names]:
            gpu_muon.step(launch, *tensors, rate, one if factor is None else factor, rule)

    def _step_group(self, names: list[str], learning_rate: float | Tensor) -> None:
        shape = logical_matrices(names[0], self.weights[names[0]]).shape[-2:]
        keep = 1 - learning_rate * self.weight_decay
        rate = learning_rate * 0.2 * math.sqrt(max(shape))  # the root mean square of an AdamW update is about 0.2
        grads = {
            name: grad for name in names if (grad := self.weights[name].grad) is not None and not self._in_cache(name, grad, keep, rate)
        }
        if not grads:
            return
        buffers = [self.buffers[name] for name in grads]
        torch._foreach_lerp_(buffers, list(grads.values()), 1 - self.momentum)
        ahead = torch._foreach_lerp(list(grads.values()), buffers, self.momentum)  # Nesterov
        pieces = [logical_matrices(name, update) for name, update in zip(grads, ahead, strict=True)]
        stack = torch.cat([piece.reshape(-1, *shape) for piece in pieces])
        updates = orthogonalise(stack, self.iterations, self.dtype)
        if isinstance(rate, Tensor):  # a rate on the device is no argument of `sub_`
            updates, rate = updates.float() * rate, 1.0

        torch._foreach_mul_([self.weights[name] for name in grads], keep)
        parts = updates.split([piece[..., 0, 0].numel() for piece in pieces])
        for name, piece, update in zip(grads, pieces, parts, strict=True):
            logical_matrices(name, self.weights[name]).sub_(update.view(piece.shape), alpha=rate)

    def _in_cache(self, name: str, grad: Tensor, keep: float | Tensor, rate: float | Tensor) -> bool:
        """Update one weight with the kernel for small matrices; False if there is none for it."""
        if isinstance(keep, Tensor) or isinstance(rate, Tensor):
            return False
        weight, buffer, grad = (logical_matrices(name, x) for x in (self.weights[name].detach(), self.buffers[name], grad))
        return optimizer_ops.muon_step((weight, buffer, grad), self.momentum, keep, rate, self.iterations, COEFFICIENTS, EPS, self.dtype)
