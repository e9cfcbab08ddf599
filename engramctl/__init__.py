"""Sweeps over the Engram/MoE split: the command line, and three functions for notebooks.

Example:
    from engramctl import fit, open_sweep, plot

    sweep = open_sweep("laptop", results="results/reference")
    print(next(iter(fit(sweep).allocation.values())).verdict.text)
    plot(sweep)["allocation"].savefig("allocation.png")
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from engramctl.findings.fits import SweepFits
    from engramctl.results.sweep_results import SweepResults

__version__ = "0.1.0"
__all__ = ["fit", "open_sweep", "plot"]


def open_sweep(name: str, results: str | Path = "results") -> "SweepResults":
    """Open a sweep that has results; `trials` is its table as a data frame, `finished` the trials in it that have a loss.

    Args:
        name: name of the sweep, and of its folder.
        results: folder that holds one folder per sweep.

    Raises `engram.UserError` when there is no such sweep, or one of its files can't be read.
    """
    from engramctl.results.sweep_results import SweepResults

    return SweepResults.open(Path(results), name, columns=None)


def fit(sweep: "SweepResults", margin: float = 0.005) -> "SweepFits":
    """What a sweep has shown: curves over rho or slots with their verdicts, and comparisons of variants; losses are in nats per token.

    Args:
        sweep: the sweep.
        margin: by how much a rho may be worse than the best one to count as near it, nats per token.

    Raises `engram.UserError` when no trial has finished, trials were validated on different documents, or the margin is none.
    """
    from engramctl.findings.fits import sweep_fits

    return sweep_fits(sweep.require_finished(), margin=margin)


def plot(sweep: "SweepResults", kind: str = "auto") -> "dict[str, Figure]":
    """The figures of a sweep, by kind: allocation, drift, memory, variants or layers.

    Args:
        sweep: the sweep.
        kind: the kind to draw; auto: all that apply.

    Raises `engram.UserError` like `fit`, and for a kind that doesn't apply.
    """
    from engramctl.findings.fits import sweep_fits
    from engramctl.findings.questions import chosen_kinds
    from engramctl.present.figures.draw import draw

    fits = sweep_fits(sweep.require_finished(), chosen_kinds(kind, sweep))
    return {name: draw(name, sweep.wanted, fits) for name in fits.kinds}
