"""Products of matrices in the dtype of products that are summed, and kept, in fp32."""

import torch
from torch import Tensor


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """`a b` in fp32, however the factors are kept: fp32, fp16 or bf16 [n, i], [i, m] -> [n, m].

    A weight's gradient comes like this straight from the product: neither rounded to the dtype of the factors nor converted from it.
    """
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype != torch.float32 and a.is_cuda:
            return torch.mm(a, b, out_dtype=torch.float32)
        return a.float() @ b.float()
