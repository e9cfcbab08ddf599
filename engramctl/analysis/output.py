"""What the commands of `analyze` have in common: models in, tables, figures and words out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engramctl import console

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from engramctl.analysis.target import Target


def begin(formats: str) -> tuple[str, ...]:
    """Set up a command that draws: linear algebra on one thread, and the figures' formats, checked."""
    from engramctl.threads import one_blas_thread

    one_blas_thread()
    from engramctl.figures.save import check_formats

    return check_formats(formats)


def load(typed: str, results: Path, device: str) -> "Target":
    """The model that was named; UserError when there is none."""
    from engram.training.machine import resolve_device
    from engramctl.analysis.target import load_target

    return load_target(typed, results, resolve_device(device))


def draw(figure: "Figure", folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure; UserError when the folder can't be written."""
    from engramctl.figures.save import save

    return save(figure, folder, name, formats)


def print_lines(lines: Sequence[str]) -> None:
    """Print the lines that are not empty on stdout."""
    terminal = console.out()
    for line in lines:
        if line:
            terminal.print(line, markup=False, soft_wrap=True)


def print_json(known: Mapping[str, Any], kept: Sequence[Path], drawn: Sequence[Path], frames: "Mapping[str, pd.DataFrame]") -> None:
    """Print what is known, the files, and the rows of the tables as strict JSON."""
    from engramctl.summary import records

    shown = {name: records(frame) for name, frame in frames.items()}
    console.print_json({**known, "tables": [str(path) for path in kept], "figures": [str(path) for path in drawn], **shown})


def say(kept: Sequence[Path], drawn: Sequence[Path], target: "Target", results: Path) -> None:
    """Say where everything is, and what to run next."""
    from engramctl.results_options import command

    console.note(f"tables: {', '.join(map(str, kept))}")
    console.note(f"figures: {', '.join(map(str, drawn))}")
    if target.sweep:
        # A checkpoint that was named by its folder may lie in another results folder.
        where = results if (results / target.sweep).absolute() == target.folder else target.folder.parent
        console.note(f"next: {command('report', target.sweep, where)} shows it with the rest of the sweep")
