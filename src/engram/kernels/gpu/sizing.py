"""How many rows a program takes, and how many programs there are."""

import triton

PROGRAMS = 528
"""Programs that each add up their share of a weight's gradient: four for each of the 132 processors of an H100."""


def rows_per_tile(width: int, rows: int, numbers: int = 2048) -> int:
    """Rows, a power of two, that make a tile of about `numbers` where each has `width`, a power of two.

    Fewer where there are few rows, so that no processor goes without a tile.
    """
    return max(1, min(numbers // width, triton.next_power_of_2(triton.cdiv(2 * rows, PROGRAMS))))


def shares(rows: int, block: int, columns: int = 1) -> tuple[int, int]:
    """Split `rows` into equal shares of whole tiles of `block` rows: number of shares, and rows of each.

    With `columns` programs for each share, there are at most PROGRAMS of them in all.
    """
    tiles = triton.cdiv(rows, block)
    each = triton.cdiv(tiles, max(1, PROGRAMS // columns))
    return triton.cdiv(tiles, each), each * block
