"""The terminal as a sweep's watcher."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from engram.config.trial import TrialConfig
from engramctl.cluster.events import Event
from engramctl.present import console
from engramctl.present.live.sweep import SweepDisplay
from engramctl.present.progress import StageProgress
from engramctl.sweep.run import Progress


class TerminalWatcher:
    """Shows what a sweep does on stderr (`sweep.run.Watcher`)."""

    def note(self, line: str) -> None:
        console.note(line)

    def stages(self) -> AbstractContextManager[Progress]:
        return StageProgress()

    @contextmanager
    def trials(self, left: Sequence[TrialConfig], done: int) -> Iterator[Callable[[Event], None]]:
        with SweepDisplay(left, done) as display:
            yield display.on_event
