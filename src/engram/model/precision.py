"""Dtypes of the products for which autocast does not choose well."""

import torch
from torch import Tensor


def small_product_dtype(x: Tensor) -> torch.dtype:
    """Dtype for products of many small matrices (experts, attention heads) whose input comes from `x`.

    Without autocast it is that of `x`; under autocast it is the autocast dtype, except for a CPU without AMX. That multiplies large
    matrices faster in bf16, but with small ones the conversion costs more than it saves (docs/LOG.md has the numbers), so it stays at fp32.
    """
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x.dtype
    if kind == "cpu" and not torch.cpu.get_capabilities().get("amx_bf16"):
        return torch.float32
    return torch.get_autocast_dtype(kind)
