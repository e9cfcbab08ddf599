"""Progress of work in named stages."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engramctl.present.console import note, talk
from engramctl.present.format import duration, human

_SAY_EVERY_S = 60.0


@dataclass
class _Stage:
    """When a stage began, when it was last reported, and how much was done when it began."""

    began: float
    said: float
    first: int

    def line(self, done: int, total: int | None) -> str | None:
        """What to add to the count, once a minute; None when it isn't time for a line yet, or the stage is done."""
        now = time.monotonic()
        if now - self.said < _SAY_EVERY_S or done == total:
            return None
        self.said = now
        if total is None or done <= self.first:
            return ""
        return f", about {duration((now - self.began) / (done - self.first) * (total - done))} left"


class StageProgress:
    """Progress of named stages: live bars on a terminal; elsewhere a line when a stage begins, and one a minute until it ends.

    Use as a context manager and call what it gives as `progress(stage, done, total)`, with total None if unknown.
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
