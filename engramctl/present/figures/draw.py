"""The figure of each kind."""

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from engramctl.findings.fits import SweepFits


def draw(kind: str, wanted: pd.DataFrame, fits: "SweepFits") -> "Figure":
    """Draw the figure of a kind, one of `findings.questions.KINDS`.

    Args:
        kind: the kind.
        wanted: the trials, `SweepResults.wanted`.
        fits: what `findings.fits.sweep_fits` made of them.
    """
    from engramctl.present.figures import allocation, drift, layers, memory, variants
    from engramctl.present.figures.readable import make_readable
    from engramctl.present.figures.style import drawing

    figures = {
        "allocation": allocation.allocation_figure,
        "drift": drift.drift_figure,
        "memory": memory.memory_figure,
        "variants": variants.variants_figure,
        "layers": layers.layers_figure,
    }
    figure = figures[kind](wanted, fits)
    with drawing():
        make_readable(figure)
    return figure
