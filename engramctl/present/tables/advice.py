"""What would settle the open curves, in the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engramctl.findings.advice import Advice
from engramctl.present import console
from engramctl.present.format import NO_VALUE, duration, format_rho, is_missing, series_name

if TYPE_CHECKING:
    from rich.console import Console


def print_advice(terminal: "Console", settling: Sequence[Advice]) -> None:
    """A table of the seeds to add, by series, cheapest first; nothing if no curve is open."""
    if not settling:
        return
    rows = [
        [
            series_name(*one.series),
            ", ".join(map(format_rho, one.rhos)),
            f"+{one.further_seeds}",
            one.trials,
            NO_VALUE if is_missing(one.seconds) else duration(one.seconds),
        ]
        for one in settling
    ]
    terminal.print(console.table(["would settle it", "at rho", "seeds", "trials", "on one core"], rows, left=2))
    terminal.print()
