"""Live view of a running sweep: a table on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engram.config import TrialConfig
from engramctl import console
from engramctl.schedule import Event

_PLAIN_EVERY_S = 30.0
_SHOWN_WAITING = 3


class _Trial:
    """What is known of a trial on its way."""

    def __init__(self, config: TrialConfig) -> None:
        self.config = config
        variant = f" {config.variant}" if config.variant else ""
        self.name = f"{config.size}{variant} ρ={config.rho:.3g} seed={config.seed}"
        self.state = "waiting"
        self.step = 0
        self.train_loss: float | None = None
        self.val_loss: float | None = None
        self.speed: float | None = None
        self.started: float | None = None
        self.seconds: float | None = None
        self.first: tuple[int, float] | None = None
        """Step and time of the first report of this run: a continued trial does not begin at 0."""
        self.last = 0.0

    @property
    def over(self) -> bool:
        return self.state in ("finished", "diverged", "failed")

    @property
    def pace(self) -> tuple[int, float]:
        """Tokens trained between the first and the last report, and the seconds that took, validation included."""
        if self.first is None:
            return 0, 0.0
        return (self.step - self.first[0]) * self.config.train.tokens_per_step, self.last - self.first[1]

    @property
    def steps(self) -> int:
        return self.config.train.steps


class SweepDisplay:
    """Shows every trial's progress, loss and speed and the time left of the sweep; feed it events.

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
        """Take one event of `schedule.run_trials`."""
        with self._lock:
            self._take(self.trials[event["trial_id"]], event)
            if self._live:
                self._live.update(self._view())
            elif time.monotonic() - self._last_plain > _PLAIN_EVERY_S and any(t.state == "running" for t in self.trials.values()):
                self._plain(self._summary())

    def _take(self, trial: _Trial, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "started":
            trial.state, trial.started = "running", trial.started or time.monotonic()
            if not self._live and not trial.step:
                self._plain(f"{trial.name}: started, {trial.steps} steps")
        elif kind == "retry":
            self._say(f"{trial.name}: its process died; starting again from its last checkpoint")
        elif kind in ("progress", "ended", "error"):
            trial.step = event.get("step") or trial.step
            trial.train_loss = event.get("train_loss") or trial.train_loss
            trial.speed = event.get("tokens_per_s") or trial.speed
            trial.last = time.monotonic()
            trial.first = trial.first or (trial.step, trial.last)
            if kind != "progress":
                trial.state, trial.val_loss = event["status"], event.get("val_loss")
                trial.seconds = time.monotonic() - (trial.started or time.monotonic())
                self._ended(trial, event.get("error"))

    def _ended(self, trial: _Trial, error: str | None) -> None:
        took = console.duration(trial.seconds or 0)
        if trial.state == "finished":
            loss = f", validation loss {trial.val_loss:.4f}" if trial.val_loss is not None else ""
            self._say(f"{trial.name}: finished{loss}, {took}")
        else:
            self._say(f"{trial.name}: {trial.state} after {took}: {(error or '').strip()}")

    def _say(self, line: str) -> None:
        if self._live:
            self._live.console.print(Text(line), soft_wrap=True)
        else:
            self._plain(line)

    def _plain(self, line: str) -> None:
        self._last_plain = time.monotonic()
        console.note(line)

    def time_left(self) -> float | None:
        """Seconds until the sweep ends at the present speed; None before there is one."""
        running = [t for t in self.trials.values() if t.state == "running"]

        def pace(size: str | None) -> float | None:
            """Tokens per second of the trials of a size so far; None: of all."""
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
            parts.append(f"{console.human(speed)} tokens/s")
        parts.append(f"{console.duration(time.monotonic() - self.started)} so far")
        if left is not None:
            parts.append(f"about {console.duration(left)} left")
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
            speed = console.human(t.speed) if t.speed else "-"
            table.add_row(Text(t.name), ProgressBar(t.steps, t.step, width=20), f"{t.step}/{t.steps}", loss, speed)
        for t in waiting[:_SHOWN_WAITING]:
            table.add_row(Text(t.name, style="dim"), Text("waiting", style="dim"), "", "", "")
        if len(waiting) > _SHOWN_WAITING:
            table.add_row(Text(f"and {len(waiting) - _SHOWN_WAITING} more waiting", style="dim"), "", "", "", "")
        return Group(table, Text(self._summary(), style="bold"))
