"""Types of the products that autocast does not decide well by itself."""

import torch
from torch import Tensor


def small_product_dtype(x: Tensor) -> torch.dtype:
    """Type for products of many small matrices (experts, attention heads) whose input comes from `x`.

    The autocast type, or fp32 where there is none. A CPU without AMX multiplies large matrices faster in bf16 but not small
    ones: converting them costs more than it saves (docs/LOG.md has the numbers). fp64 stays as it is.
    """
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x.dtype
    if kind == "cpu" and not torch.cpu.get_capabilities().get("amx_bf16"):
        return torch.float32
    return torch.get_autocast_dtype(kind)
