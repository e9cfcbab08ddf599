"""What a person sees: data on stdout, talk on stderr, errors as one line.

Rich decides about colour and width; a pipe or a file gets plain text at 140 columns unless COLUMNS says otherwise.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 140
_SAY_EVERY_S = 60.0


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def out() -> Console:
    """Console of the data a command was asked for (stdout)."""
    return _console(stderr=False)


def talk() -> Console:
    """Console of progress, notes and errors (stderr)."""
    return _console(stderr=True)


def error(message: str) -> None:
    """Print one line for a user's mistake, never wrapped and never read as markup."""
    talk().print(Text.assemble(("error: ", "bold red"), " ".join(message.split())), soft_wrap=True)


def note(message: str) -> None:
    """Print a line of talk on stderr."""
    talk().print(Text(message), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print strict JSON (no NaN) on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1, title: str | None = None) -> Table:
    """A compact table: the first `left` columns are text, the others are numbers and stand to the right."""
    result = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        result.add_column(name, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        result.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return result


def human(value: float, digits: int = 3) -> str:
    """1234567 -> 1.23M: significant digits and a suffix of thousands."""
    if value != 0 and abs(value) >= 1e15:
        return f"{value:.{digits}g}"
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """75.2 -> 1m15s, 200000 -> 2d07h."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


@dataclass
class _Stage:
    """When a stage began, when a line last spoke of it, and how much was done at its begin."""

    began: float
    said: float
    first: int

    def line(self, done: int, total: int | None) -> str | None:
        """What to add to the count once a minute; None: it is not time yet, or over."""
        now = time.monotonic()
        if now - self.said < _SAY_EVERY_S or done == total:
            return None
        self.said = now
        if total is None or done <= self.first:
            return ""
        return f", about {duration((now - self.began) / (done - self.first) * (total - done))} left"


class StageProgress:
    """Progress of named stages: a live bar on a terminal; elsewhere a line when a stage begins, and one a minute while it goes on.

    Use as a context manager; call it as `progress(stage, done, total)`; total None means unknown.
    """

    def __init__(self) -> None:
        self._console = talk()
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._stages: dict[str, _Stage] = {}

    def __enter__(self) -> Callable[[str, int, int | None], None]:
        if self._live:
            self._progress.start()
        return self._update

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._progress.stop()

    def _update(self, stage: str, done: int, total: int | None) -> None:
        count = human(done) if total is None else f"{human(done)}/{human(total)}"
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, count=count)
            self._stages[stage] = _Stage(time.monotonic(), time.monotonic(), done)
            if not self._live:
                note(f"{stage} ...")
        self._progress.update(self._tasks[stage], completed=done, total=total, count=count)
        if not self._live and (line := self._stages[stage].line(done, total)) is not None:
            note(f"{stage}: {count}{line}")
