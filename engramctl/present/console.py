"""Printing: data goes to stdout, talk to stderr, errors are one line.

Rich decides on colour and width; a pipe or a file gets plain text, 140 columns wide unless COLUMNS says otherwise.
"""

import os
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 140


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def out() -> Console:
    """The console for the data that a command was asked for (stdout)."""
    return _console(stderr=False)


def talk() -> Console:
    """The console for progress, notes and errors (stderr)."""
    return _console(stderr=True)


def error(message: str) -> None:
    """Print a user's mistake as one line, never wrapped and never read as markup."""
    talk().print(Text.assemble(("error: ", "bold red"), " ".join(message.split())), soft_wrap=True)


def note(message: str) -> None:
    """Print a line of talk on stderr."""
    talk().print(Text(message), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1, title: str | None = None) -> Table:
    """A compact table: the first `left` columns are text, the others are numbers and right-aligned."""
    result = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        result.add_column(name, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        result.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return result
