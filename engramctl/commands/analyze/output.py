"""What a command of `analyze` leaves behind: tables with the model, figures, and words or JSON on stdout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engramctl.commands.analyze.target import Target
from engramctl.present import console

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from engramctl.results.parquet import Columns


def begin(formats: str) -> tuple[str, ...]:
    """Set up a command that draws: linear algebra on one thread, and the figures' formats, checked."""
    from engramctl.commands.process import one_blas_thread

    one_blas_thread()
    from engramctl.present.figures.save import check_formats

    return check_formats(formats)


class Output:
    """Findings about one model.

    Args:
        target: the model that they are kept with.
        results: the results folder of the command line.
        figures: folder for the figures; None: with the model.
        formats: of the figures.
        as_json: whether stdout gets JSON in place of tables.
    """

    def __init__(self, target: Target, results: Path, figures: Path | None, formats: Sequence[str], as_json: bool) -> None:
        self.target, self.results, self.formats, self.as_json = target, results, formats, as_json
        self._figures = figures or target.store.figures
        self._kept: list[Path] = []
        self._drawn: list[Path] = []
        self._shown: dict[str, pd.DataFrame] = {}

    def keep(self, kind: str, columns: "Columns", key: str, name: str | None = None) -> "pd.DataFrame":
        """Keep a table and read it as it was kept.

        Args:
            kind: of `results.schema.analysis.TABLES`.
            columns: the table.
            key: its name in the JSON.
            name: of the file; None: the trial's id.

        Raises UserError when the folder can't be written.
        """
        store, name = self.target.store, name or self.target.trial.id
        self._kept.append(store.write(name, kind, columns))
        frame = self._shown[key] = store.read(name, kind)
        return frame

    def draw(self, figure: "Figure", name: str) -> None:
        """Write a figure; UserError when the folder can't be written."""
        from engramctl.present.figures.save import save

        self._drawn += save(figure, self._figures, name, self.formats)

    def print(self, *parts: Any) -> None:
        """Tables and lines for a person, with an empty line after each table but the last part; empty lines of text are left out."""
        terminal = console.out()
        for i, part in enumerate(parts):
            if isinstance(part, str):
                if part:
                    terminal.print(part, markup=False, soft_wrap=True)
            else:
                terminal.print(part)
                if i + 1 < len(parts):
                    terminal.print()

    def finish(self, known: Mapping[str, Any]) -> None:
        """Print the JSON if it was asked for, say where everything is, and what to run next."""
        from engramctl.present.json import print_json, records
        from engramctl.results.defaults import command

        if self.as_json:
            files = {"tables": [str(path) for path in self._kept], "figures": [str(path) for path in self._drawn]}
            print_json({**known, **files, **{key: records(frame) for key, frame in self._shown.items()}})
        console.note(f"tables: {', '.join(map(str, self._kept))}")
        console.note(f"figures: {', '.join(map(str, self._drawn))}")
        if sweep := self.target.home.sweep:
            # A checkpoint that was named by its folder may lie in another results folder.
            where = self.results if (self.results / sweep.sweep).absolute() == sweep.folder else sweep.results
            console.note(f"next: {command('report', sweep.sweep, where)} shows it with the rest of the sweep")
