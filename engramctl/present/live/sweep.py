"""Live view of a running sweep: a table on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Sequence

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engram.config.trial import TrialConfig
from engramctl.cluster.events import ENDED, RETRY, STARTED, Event
from engramctl.present import console
from engramctl.present.format import duration, human, short_trial_name
from engramctl.results.schema.trials import STATUSES
from engramctl.results.trial_table import FINISHED

_PLAIN_EVERY_S = 30.0
_SHOWN_WAITING = 3


class _Trial:
    """What is known about a trial while it trains."""

    def __init__(self, config: TrialConfig) -> None:
        self.config = config
        self.name = short_trial_name(config)
        self.state = "waiting"
        self.step = 0
        self.train_loss: float | None = None
        self.val_loss: float | None = None
        self.speed: float | None = None
        self.started: float | None = None
        self.seconds: float | None = None
        self.first: tuple[int, float] | None = None
        """Step and time of the first report in this run: a continued trial does not begin at 0."""
        self.notes: set[str] = set()
        """What has been said about it already."""
        self.last = 0.0
        """Time of the last report."""

    @property
    def over(self) -> bool:
        return self.state in STATUSES

    @property
    def pace(self) -> tuple[int, float]:
        """Tokens trained between the first and the last report, and the seconds that this took, validation included."""
        if self.first is None:
            return 0, 0.0
        return (self.step - self.first[0]) * self.config.train.tokens_per_step, self.last - self.first[1]

    @property
    def steps(self) -> int:
        return self.config.train.steps


class SweepDisplay:
    """Progress, loss and speed of every trial, and the time left for the sweep; feed it events.

    Use as a context manager. Everything goes to stderr.
    """

    def __init__(self, trials: Sequence[TrialConfig], already_done: int) -> None:
        self.trials = {trial.id: _Trial(trial) for trial in trials}
        self.already_done = already_done
        self.started = time.monotonic()
        self._console = console.talk()
        self._live = Live(console=self._console, refresh_per_second=2, transient=True) if self._console.is_terminal else None
        self._last_plain = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> "SweepDisplay":
        if self._live:
            self._live.start()
            self._live.update(self._view())
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def on_event(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            self._take(self.trials[event.key], event)
            if self._live:
                self._live.update(self._view())
            elif time.monotonic() - self._last_plain > _PLAIN_EVERY_S and any(t.state == "running" for t in self.trials.values()):
                self._plain(self._summary())

    def _take(self, trial: _Trial, event: Event) -> None:
        if event.note and event.note not in trial.notes:
            trial.notes.add(event.note)
            self._say(f"{trial.name}: {event.note}")
        if event.kind == STARTED:
            trial.state, trial.started = "running", trial.started or time.monotonic()
            if not self._live and not trial.step:
                self._plain(f"{trial.name}: started, {trial.steps} steps")
        elif event.kind == RETRY:
            self._say(f"{trial.name}: its process died; starting again from its last checkpoint")
        else:
            trial.step = event.done or trial.step
            trial.train_loss = event.train_loss or trial.train_loss
            trial.speed = event.tokens_per_s or trial.speed
            trial.last = time.monotonic()
            trial.first = trial.first or (trial.step, trial.last)
            if event.kind == ENDED:
                trial.state, trial.val_loss = event.status, event.val_loss
                trial.seconds = trial.last - (trial.started or trial.last)  # killed before its first step: never started
                self._ended(trial, event.error)

    def _ended(self, trial: _Trial, error: str) -> None:
        took = duration(trial.seconds or 0)
        if trial.state == FINISHED:
            loss = f", validation loss {trial.val_loss:.4f}" if trial.val_loss is not None else ""
            self._say(f"{trial.name}: finished{loss}, {took}")
        else:
            self._say(f"{trial.name}: {trial.state} after {took}: {error.strip()}")

    def _say(self, line: str) -> None:
        if self._live:
            self._live.console.print(Text(line), soft_wrap=True)
        else:
            self._plain(line)

    def _plain(self, line: str) -> None:
        self._last_plain = time.monotonic()
        console.note(line)

    def time_left(self) -> float | None:
        """Seconds until the sweep ends at its speed so far; None while there is no speed yet."""
        running = [t for t in self.trials.values() if t.state == "running"]

        def pace(size: str | None) -> float | None:
            """Tokens per second so far of the trials of a size (None: of all); None before the second report."""
            paces = [t.pace for t in self.trials.values() if size in (None, t.config.size)]
            tokens, seconds = (sum(part) for part in zip(*paces, strict=True))
            return tokens / seconds if tokens and seconds else None

        if not running or pace(None) is None:
            return None
        left = {}
        for trial in self.trials.values():
            if not trial.over:
                speed = pace(trial.config.size) or pace(None) or 1.0
                left[trial.config.id] = (trial.steps - trial.step) * trial.config.train.tokens_per_step / speed
        return max(sum(left.values()) / len(running), *(left[t.config.id] for t in running))

    def _summary(self) -> str:
        over = sum(t.over for t in self.trials.values())
        running = [t for t in self.trials.values() if t.state == "running"]
        speed = sum(t.speed or 0 for t in running)
        left = self.time_left()
        parts = [f"{over + self.already_done}/{len(self.trials) + self.already_done} trials done"]
        if speed:
            parts.append(f"{human(speed)} tokens/s")
        parts.append(f"{duration(time.monotonic() - self.started)} so far")
        if left is not None:
            parts.append(f"about {duration(left)} left")
        if not self._live:
            parts += [f"{t.name} {100 * t.step // t.steps}%" for t in running]
        return ", ".join(parts)

    def _view(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("trial", no_wrap=True)
        table.add_column("", width=20)
        for name in ("step", "loss", "tokens/s"):
            table.add_column(name, justify="right", no_wrap=True)
        running = [t for t in self.trials.values() if t.state == "running"]
        waiting = [t for t in self.trials.values() if t.state == "waiting"]
        for t in running:
            loss = f"{t.train_loss:.3f}" if t.train_loss else "-"
            speed = human(t.speed) if t.speed else "-"
            table.add_row(Text(t.name), ProgressBar(t.steps, t.step, width=20), f"{t.step}/{t.steps}", loss, speed)
        for t in waiting[:_SHOWN_WAITING]:
            table.add_row(Text(t.name, style="dim"), Text("waiting", style="dim"), "", "", "")
        if len(waiting) > _SHOWN_WAITING:
            table.add_row(Text(f"and {len(waiting) - _SHOWN_WAITING} more waiting", style="dim"), "", "", "", "")
        return Group(table, Text(self._summary(), style="bold"))
