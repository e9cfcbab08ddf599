"""Live view of scoring: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engramctl.cluster.events import PROGRESS, STARTED, Event
from engramctl.present import console
from engramctl.present.format import duration
from engramctl.results.score_requests import Job
from engramctl.results.trial_table import FINISHED

_PLAIN_EVERY_S = 30.0
_KINDS = {"loglikelihood": "choices", "loglikelihood_rolling": "texts", "generate_until": "answers"}


class ScoringDisplay:
    """Progress of scoring jobs; feed it events.

    Use as a context manager. Everything goes to stderr.
    """

    def __init__(self, jobs: Sequence[Job], already_done: int) -> None:
        self.jobs, self.already_done = {job.file_name: job for job in jobs}, already_done
        self.failed: list[str] = []
        """Keys of jobs that failed."""
        self._told: set[str] = set()
        self._console = console.talk()
        self._live = self._console.is_terminal
        self._columns: Any = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[count]}"))
        self._progress = Progress(*self._columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True)
        self._bars: dict[str, Any] = {}
        self._started: dict[str, float] = {}
        self._seconds: list[float] = []
        self._begin, self._last_plain = time.monotonic(), time.monotonic()

    def __enter__(self) -> "ScoringDisplay":
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._progress.stop()

    def on_event(self, event: Event) -> None:
        """Take one event."""
        job = self.jobs[event.key]
        if event.kind == STARTED:
            self._started[event.key] = time.monotonic()
            if not self._live:
                console.note(f"{job.name}: started")
            elif event.key not in self._bars:
                self._bars[event.key] = self._progress.add_task(job.name, total=None, count="reading")
        elif event.kind == PROGRESS:
            if event.key in self._bars:
                count = f"{event.done:,}/{event.total:,} {_KINDS.get(event.unit, event.unit)}"
                self._progress.update(self._bars[event.key], completed=event.done, total=event.total, count=count)
            elif not self._live and time.monotonic() - self._last_plain > _PLAIN_EVERY_S:
                self._last_plain = time.monotonic()
                console.note(f"{job.name}: {event.done:,}/{event.total:,} {_KINDS.get(event.unit, event.unit)}; {self._summary()}")
        else:
            self._ended(event, job)

    def _ended(self, event: Event, job: Job) -> None:
        if event.key in self._bars:
            self._progress.remove_task(self._bars.pop(event.key))
        took = time.monotonic() - self._started.get(event.key, self._begin)
        self._seconds.append(took)
        reasons: dict[str, list[str]] = {}
        for task, why in event.left_out.items():
            reasons.setdefault(why, []).append(task)
        for why, tasks in reasons.items():
            if why not in self._told:  # it is the same for every model of a sweep
                self._told.add(why)
                self._say(f"{job.request.name} without {', '.join(tasks)}: {why}")
        if event.status == FINISHED:
            self._say(f"{job.name}: scored in {duration(took)}; {self._summary()}")
        else:
            self.failed.append(event.key)
            self._say(f"{job.name}: failed after {duration(took)}: {event.error.strip()}")

    def _summary(self) -> str:
        over, n = len(self._seconds), len(self.jobs)
        parts = [f"{over + self.already_done}/{n + self.already_done} done", f"{duration(time.monotonic() - self._begin)} so far"]
        if over and over < n:
            parts.append(f"about {duration((time.monotonic() - self._begin) / over * (n - over))} left")
        return ", ".join(parts)

    def _say(self, line: str) -> None:
        if self._live:
            self._progress.console.print(line, markup=False, soft_wrap=True)
        else:
            console.note(line)
