"""How kernels that work on the rows of a matrix are laid out."""

import triton
from torch import Tensor

PROGRAMS = 512
"""Most programs of a kernel that adds over rows: each writes one partial sum. A few for each processor of a large GPU."""
_TILE = 2048


def rows_of(x: Tensor) -> Tensor:
    """[..., d] -> [N, d] whose columns are adjacent; a copy only if need be, since kernels take any stride between rows."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def row_blocks(width: int) -> tuple[int, int]:
    """Columns and rows of the tile that a program holds at a time: whole rows, about two thousand numbers."""
    columns = triton.next_power_of_2(width)
    return columns, max(1, min(64, _TILE // columns))
