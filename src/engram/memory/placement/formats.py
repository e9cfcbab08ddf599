"""How the numbers of a table row are stored: fp32 or bf16, and for serving also int8 or fp8 with one scale per row."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_SCALE_BYTES = 4
_INT8_LARGEST = 127.0
_FP8_LARGEST = 448.0
"""Largest number of float8_e4m3fn."""


@dataclass(frozen=True)
class RowFormat:
    """A way to store rows. `encode` and `decode` are inverses up to rounding."""

    name: str
    dtype: torch.dtype
    """Of a stored number."""
    encode: Callable[[Tensor], Tensor]
    """fp32 [n, r] -> uint8 [n, bytes]."""
    decode: Callable[[Tensor], Tensor]
    """uint8 [n, bytes] -> fp32 [n, r]."""
    scaled: bool = False
    """Whether an fp32 scale precedes the numbers of a row."""

    def row_bytes(self, row_dim: int) -> int:
        """Bytes of a row of `row_dim` numbers."""
        return row_dim * self.dtype.itemsize + (_SCALE_BYTES if self.scaled else 0)


def _cast(dtype: torch.dtype) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    return (lambda rows: rows.to(dtype).contiguous().view(torch.uint8)), (lambda stored: stored.view(dtype).float())


def _scaled(dtype: torch.dtype, largest: float, whole: bool) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    def encode(rows: Tensor) -> Tensor:
        scale = rows.abs().amax(-1, keepdim=True) / largest  # [n, 1]
        steps = rows / torch.where(scale > 0, scale, 1.0)
        numbers = (steps.round() if whole else steps).clamp(-largest, largest).to(dtype)
        return torch.cat([scale.contiguous().view(torch.uint8), numbers.view(torch.uint8)], dim=-1)

    def decode(stored: Tensor) -> Tensor:
        scale = stored[:, :_SCALE_BYTES].contiguous().view(torch.float32)  # [n, 1]
        return stored[:, _SCALE_BYTES:].contiguous().view(dtype).float().mul_(scale)

    return encode, decode


FORMATS = {
    one.name: one
    for one in (
        RowFormat("fp32", torch.float32, *_cast(torch.float32)),
        RowFormat("bf16", torch.bfloat16, *_cast(torch.bfloat16)),
        RowFormat("int8", torch.int8, *_scaled(torch.int8, _INT8_LARGEST, whole=True), scaled=True),
        RowFormat("fp8", torch.float8_e4m3fn, *_scaled(torch.float8_e4m3fn, _FP8_LARGEST, whole=False), scaled=True),
    )
}
