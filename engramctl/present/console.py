"""Printing: data goes to stdout, talk to stderr, errors are one line.

Rich decides on colour and width; a pipe or a file gets plain text, 140 columns wide unless COLUMNS says otherwise. What others have named
(files, variants, tasks) is shown with its control characters written out, so that it moves no cursor and hides nothing.
"""

import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from engram.errors import UserError
from engramctl.present.blocks import BlockTable

PLAIN_WIDTH = 140
_NARROWEST = 20
"""Nothing can be read in fewer columns, whatever COLUMNS says."""
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters but tabs and line ends, characters that turn the direction of text, and halves of characters."""


def escaped(text: str) -> str:
    """A text with control characters written out: an escape character is `\\x1b`."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


class _Console(Console):
    """A console on which only Rich itself can send control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control or not _UNSEEN.search(segment.text) else Segment(escaped(segment.text), segment.style)


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    if (asked := os.environ.get("COLUMNS", "")).isdecimal() and asked.isascii():
        width = max(_NARROWEST, int(asked[:5]))
    return _Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def out() -> Console:
    """The console for the data that a command was asked for (stdout)."""
    return _console(stderr=False)


def talk() -> Console:
    """The console for progress, notes and errors (stderr)."""
    return _console(stderr=True)


def error(message: str) -> None:
    """Print a user's mistake as one line, never wrapped and never read as markup."""
    with suppress(OSError):  # there is nobody left to tell
        talk().print(Text.assemble(("error: ", "bold red"), escaped(" ".join(message.split()))), soft_wrap=True)


def note(message: str) -> None:
    """Print a line of talk on stderr."""
    with suppress(OSError):
        talk().print(Text(escaped(message)), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1, title: str | None = None) -> Table:
    """A compact table: the first `left` columns are text, the others are numbers and right-aligned."""
    result = BlockTable(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    result.left = left
    for i, name in enumerate(columns):
        result.add_column(name, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        result.add_row(*(Text("" if cell is None else escaped(str(cell))) for cell in row))
    return result


def _fill_closed_descriptors() -> None:
    """Open nothing in place of closed standard streams, so that no file or socket gets their numbers; Python's streams stay None."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


@contextmanager
def safe_streams() -> Iterator[None]:
    """For the time of a program: characters that a stream can't show are replaced, and a stdout that can't be written is a UserError."""
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    stream: Any
    for stream in before:
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    with open(os.devnull, "w") as nowhere:
        sys.stdout = _Stdout(before[0], nowhere)
        sys.stderr = before[1] or nowhere  # None where the shell has closed it
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


class _Stdout:
    """stdout whose failures are the user's to mend. None stands for one that the shell has closed."""

    def __init__(self, stream: IO[str] | None, nowhere: IO[str]) -> None:
        self._stream = stream
        self._described = stream or nowhere

    def write(self, text: str) -> int:
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, "it is closed")
            return self._stream.write(text)
        except OSError as problem:
            raise self._failure(problem) from None

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as problem:
            raise self._failure(problem) from None

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._described, name)

    def _failure(self, problem: OSError) -> Exception:
        if problem.errno == errno.EPIPE:  # whoever read has seen enough
            return problem
        # What is left in the buffer would be tried again, and complained about, when Python ends.
        with suppress(OSError, ValueError, AttributeError):
            if self._stream is None:
                return UserError("standard output can't be written: it is closed")
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        return UserError(f"standard output can't be written: {problem.strerror}")
