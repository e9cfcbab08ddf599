"""What an `analyze` command produces: tables kept with the model, figures, and text or JSON on stdout."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engramctl.commands.analyze.target import Target
from engramctl.commands.process import one_blas_thread
from engramctl.present import console

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from engramctl.results.parquet import Columns


def begin(formats: str) -> tuple[str, ...]:
    """Set up a command that draws: limit linear algebra to one thread, and check the figures' formats."""
    one_blas_thread()
    from engramctl.present.figures.save import check_formats

    return check_formats(formats)


class Output:
    """Findings about one model.

    Args:
        target: the model that they are kept with.
        results: the results folder given on the command line.
        figures: folder for the figures; None: with the model.
        formats: formats of the figures.
        as_json: whether stdout gets JSON instead of tables.
    """

    def __init__(self, target: Target, results: Path, figures: Path | None, formats: Sequence[str], as_json: bool) -> None:
        self.target, self.results, self.formats, self.as_json = target, results, formats, as_json
        self._figures = figures or target.store.figures
        self._kept: list[Path] = []
        self._drawn: list[Path] = []
        self._shown: dict[str, pd.DataFrame] = {}

    def keep(
        self, kind: str, measure: "Callable[[], Columns]", key: str, asked: Mapping[str, Any], code: Sequence[str], name: str | None = None
    ) -> "pd.DataFrame":
        """Measure and write a table, unless the one that is there is of the same model, text, question and code; returns it.

        Args:
            kind: kind of table, a key of `results.schema.analysis.TABLES`.
            measure: returns the table.
            key: its name in the JSON.
            asked: what the numbers depend on besides the model: options and files, as `results.fingerprints.identity` takes them.
            code: the modules that measure.
            name: name of the file; None: the trial's id.

        Raises UserError when the folder can't be written.
        """
        from engramctl.results.fingerprints import identity
        from engramctl.results.measuring_code import measuring_code

        store, name = self.target.store, name or self.target.trial.id
        known = {"model": self.target.content, "asked": asked, "code": measuring_code(*code, "engramctl.results.rows.analysis")}
        wanted = identity(f"analysis {kind}", known)
        path = store.path(name, kind)
        if store.identity(name, kind) == wanted:
            console.note(f"measured already: {path}")
        else:
            store.write(name, kind, measure(), wanted)
        self._kept.append(path)
        frame = self._shown[key] = store.read(name, kind)
        return frame

    def draw(self, figure: "Figure", name: str) -> None:
        """Write a figure; UserError when the folder can't be written."""
        from engramctl.present.figures.save import save

        self._drawn += save(figure, self._figures, name, self.formats)

    def print(self, *parts: Any) -> None:
        """Print tables and lines of text, with an empty line after each table that isn't the last part; empty texts are skipped."""
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
        """Print the JSON if it was asked for, and say where everything is and what to run next."""
        from engramctl.present.json import print_json, records
        from engramctl.results.defaults import command

        if self.as_json:
            files = {"tables": [str(path) for path in self._kept], "figures": [str(path) for path in self._drawn]}
            print_json({**known, **files, **{key: records(frame) for key, frame in self._shown.items()}})
        console.note(f"tables: {', '.join(map(str, self._kept))}")
        console.note(f"figures: {', '.join(map(str, self._drawn))}")
        if sweep := self.target.home.sweep:
            # A checkpoint given by its folder may lie in another results folder.
            where = self.results if (self.results / sweep.sweep).absolute() == sweep.folder else sweep.results
            console.note(f"next: {command('report', sweep.sweep, where)} shows it with the rest of the sweep")
