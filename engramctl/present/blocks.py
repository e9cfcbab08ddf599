"""Tables that stay readable where the terminal is narrower than they are."""

from collections.abc import Iterator
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

_GAP = 2
"""Spaces between two columns."""
_INTERVAL = "95 %"
"""How the header of an interval begins, which stays beside its estimate."""


class BlockTable(Table):
    """A table without lines that breaks into blocks of columns, one below the other, rather than cut its cells off.

    Every block begins with the first `left` columns, which name the rows. Columns that may fold (`no_wrap` is off) fold first.
    """

    left = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if _width(self.columns) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for i, columns in enumerate(self._blocks(options.max_width)):
            if i:
                yield Text()
            part = Table(title=None if i else self.title, title_justify="left", box=None, pad_edge=False, header_style=self.header_style)
            for j, column in enumerate(columns):
                # Where a single column beside the names is too much, names fold, and numbers only where nothing else helps.
                too_wide = _width(columns if j < self.left else [_folded(one) for one in columns[: self.left]] + columns[self.left :])
                shown = _folded(column) if too_wide > options.max_width else column
                part.add_column(
                    shown.header, justify=shown.justify, no_wrap=shown.no_wrap, overflow=shown.overflow, min_width=shown.min_width
                )
            for row in zip(*(column.cells for column in columns), strict=True):
                part.add_row(*row)
            yield from console.render(part, options)

    def _blocks(self, width: int) -> Iterator[list[Column]]:
        names, rest = self.columns[: self.left], self.columns[self.left :]
        units: list[list[Column]] = []
        for column in rest:
            if units and _text(column.header).startswith(_INTERVAL) and _width([*names, *units[-1], column]) <= width:
                units[-1].append(column)
            else:
                units.append([column])
        block: list[Column] = []
        for unit in units:
            if block and _width([*names, *block, *unit]) > width:
                yield [*names, *block]
                block = []
            block += unit
        yield [*names, *block]


def _folded(column: Column) -> Column:
    return replace(column, no_wrap=False, overflow="fold")


def _width(columns: list[Column]) -> int:
    """The least width at which nothing is cut off."""
    return sum(map(_column_width, columns)) + _GAP * (len(columns) - 1)


def _column_width(column: Column) -> int:
    texts = [_text(cell) for cell in (column.header, *column.cells)]
    pieces = [piece for text in texts for piece in (text.splitlines() if column.no_wrap else text.split())]
    return max(column.min_width or 0, max(map(cell_len, pieces), default=0))


def _text(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
