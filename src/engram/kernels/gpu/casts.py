"""Copies of weights in the dtype of products, made once a step and all together: one by one, each would be a kernel of its own."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_copies: ContextVar[dict[int, tuple[Tensor, Tensor]]] = ContextVar("_copies")


@contextmanager
def once_a_step(weights: Iterable[Tensor], dtype: torch.dtype) -> Iterator[None]:
    """Inside, `product_copy` has copies of the `weights` in `dtype`; they must not change meanwhile."""
    originals = [weight.detach() for weight in weights if weight.is_contiguous()]
    copies = [torch.empty_like(weight, dtype=dtype) for weight in originals]
    if copies:
        torch._foreach_copy_(copies, originals)
    token = _copies.set({weight.data_ptr(): (weight, copy) for weight, copy in zip(originals, copies, strict=True)})
    try:
        yield
    finally:
        _copies.reset(token)


def product_copy(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers of a weight, or of a view of all of it, in `dtype`, contiguous and without a gradient."""
    weight = weight.detach()
    if weight.dtype == dtype:
        return weight.contiguous()
    known = _copies.get({}).get(weight.data_ptr())
    if known is not None and known[1].dtype == dtype and known[0].numel() == weight.numel() and weight.is_contiguous():
        return known[1].view(weight.shape)
    return weight.to(dtype, memory_format=torch.contiguous_format)
