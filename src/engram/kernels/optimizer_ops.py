"""The optimisers' operations that have a compiled kernel. They return False where it can't be used; the caller then uses PyTorch's."""

import torch
from torch import Tensor

from engram import kernels

_IN_CACHE = 1 << 16
"""Largest matrix, in numbers, for which a core's cache holds all that its Newton-Schulz iterations need."""


def update_rows(
    table: Tensor,
    moments: tuple[Tensor, Tensor],
    rows: Tensor,
    grad: Tensor,
    betas: tuple[float, float],
    corrections: tuple[float, float],
    eps: float,
    rate: float,
) -> bool:
    """Adam on some rows of a table, in place.

    Args:
        table: fp32 [n, r].
        moments: first and second, fp32 [n, r] each.
        rows: distinct, int64 [U].
        grad: fp32 [U, r].
        betas: decay of the moments.
        corrections: 1 - beta^step for both.
        eps: added to the root of the second moment.
        rate: learning rate.
    """
    library = kernels.library(table)
    if library is None or table.dtype != torch.float32:
        return False
    library.call("row_adam", table.detach(), *moments, rows, grad.contiguous(), *betas, *corrections, eps, rate, *grad.shape)
    return True


def muon_step(
    matrices: tuple[Tensor, Tensor, Tensor],
    momentum: float,
    keep: float,
    rate: float,
    iterations: int,
    coefficients: tuple[float, float, float],
    eps: float,
    dtype: torch.dtype,
) -> bool:
    """Muon on a stack of small matrices, in place.

    Args:
        matrices: views [..., a, b] of weights, momenta and gradients, with the same strides.
        momentum: of the running mean of gradients (Nesterov).
        keep: what the weights are multiplied by (weight decay).
        rate: factor on the orthogonalised update.
        iterations: of Newton-Schulz.
        coefficients: of Newton-Schulz.
        eps: smallest norm that a matrix is divided by.
        dtype: of the products, fp32 or bf16.
    """
    weights = matrices[0]
    library = kernels.library(weights)
    *stack, rows, columns = weights.shape
    usable = rows * columns <= _IN_CACHE and len(stack) <= 2 and weights.stride(-1) == 1
    alike = all(one.dtype == torch.float32 and one.stride() == weights.stride() for one in matrices)
    if library is None or not usable or not alike or (dtype == torch.bfloat16 and not kernels.cpu_multiplies_bf16()):
        return False
    outer, inner = ([1, 1, *stack])[-2:]
    outer_stride, inner_stride, row_stride = ([0, 0, *weights.stride()[:-1]])[-3:]
    starts = (one.data_ptr() for one in matrices)  # they are views, not contiguous
    shape = (outer, outer_stride, inner, inner_stride, rows, columns, row_stride)
    library.call("muon_step", *starts, *shape, momentum, keep, rate, iterations, *coefficients, eps, dtype == torch.bfloat16)
    return True
