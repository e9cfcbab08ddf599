"""Panels of a figure: one or a grid of them, the rows at their edges where trials without a loss are marked, labels and legends."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engramctl.present.figures.style import COLUMN, GREY, PAGE
from engramctl.results.trial_table import DIVERGED, FAILED, MISSING

EDGE = {DIVERGED: ("x", "diverged"), FAILED: ("$!$", "failed"), MISSING: ("$?$", "missing (not run)")}
"""Marker and label of trials without a loss: missing ones go to the bottom edge, the others to the top, where a diverging loss goes."""
_MARK, _PEN = {DIVERGED: 4.0, FAILED: 6.0, MISSING: 6.0}, {DIVERGED: 0.9, FAILED: 0.2, MISSING: 0.2}
"""Size and line width of the markers, points: a thick line would fill the gaps in a letter."""
_GAP = 0.02
"""Space outside the rows of marks, as a share of the axes."""


def n_columns(n_panels: int) -> int:
    """How many panels stand side by side."""
    return 1 if n_panels == 1 else 2 if n_panels <= 4 else 3


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with a canvas and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def grid(n: int, height: float, extra: float, single: float) -> tuple[Figure, list[Axes]]:
    """A figure of n panels: a single one is a column wide and `single` inches high, else each row takes `height` and the rest `extra`."""
    columns = n_columns(n)
    rows = -(-n // columns)
    figure = new_figure(COLUMN, single) if n == 1 else new_figure(PAGE, extra + height * rows)
    flat = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in flat[n:]:
        unused.remove()
    return figure, flat[:n]


def is_lowest(i: int, n: int) -> bool:
    """Whether panel i of n has no panel below it."""
    return i >= n - n_columns(n)


def draw_mark(axes: Axes, status: str, at: tuple[float, float], n: int, color: str, where: Any) -> None:
    """Mark n trials without a loss at a point in the coordinates `where`, with their number if there are several."""
    pen: Any = {"color": color, "clip_on": False, "zorder": 6}
    axes.plot([at[0]], [at[1]], marker=EDGE[status][0], ms=_MARK[status], mew=_PEN[status], ls="", transform=where, **pen)
    if n > 1:
        beside: Any = {"xycoords": where, "xytext": (3.2, 0), "textcoords": "offset points", "annotation_clip": False}
        axes.annotate(str(n), at, ha="left", va="center", fontsize=5, color=color, zorder=6, **beside)


class Edges:
    """Rows along the lower and upper edges of axes, clear of the data; each is a share `height` of the axes."""

    def __init__(self, axes: Axes, height: float) -> None:
        self.axes, self.height = axes, height
        self._used = {"bottom": _GAP, "top": _GAP}

    def row(self, edge: str) -> float:
        """Take the next row inwards from an edge; returns its middle, as a share of the axes."""
        y = self._used[edge] + self.height / 2
        self._used[edge] += self.height
        return y if edge == "bottom" else 1 - y

    def mark(self, trials: pd.DataFrame, x: str, color: str = GREY) -> None:
        """Mark the trials without a loss at their `x`, one row per status, with their number where there are several."""
        where = self.axes.get_xaxis_transform()
        for status in EDGE:
            counts = Counter(trials.loc[trials["status"] == status, x].tolist())
            if not counts:
                continue
            y = self.row("bottom" if status == MISSING else "top")
            for at, n in counts.items():
                draw_mark(self.axes, status, (at, y), n, color, where)

    def fit(self, low: float, high: float, *, label: float = 0.0) -> None:
        """Set limits that keep data from `low` to `high` clear of the rows; `label` is extra room below the data, for text."""
        if not low <= high:
            return
        # A single point has no range, so it is given one.
        span = max(high - low, 0.01)
        below = self._used["bottom"] + 0.03 + label
        whole = span / (1 - 0.03 - below - self._used["top"])
        self.axes.set_ylim(low - whole * below, low - whole * below + whole)


def label_axes(figure: Figure, axes: Sequence[Axes], x: str, y: str, pad: float = 3.0) -> None:
    """Label the axes: a single panel at its own axes, the x label `pad` points below the ticks, several panels once for all."""
    if len(axes) == 1:
        axes[0].set_xlabel(x, labelpad=pad)
        axes[0].set_ylabel(y)
    else:
        figure.supxlabel(x, fontsize="medium")
        figure.supylabel(y, fontsize="medium")
        for axis in (axis for one in axes for axis in (one.xaxis, one.yaxis)):
            # Any fixed place will do for these empty labels; otherwise each drawing would spend time on moving them clear of the ticks.
            axis.set_label_coords(0, 0)


def edge_handles(statuses: Iterable[str]) -> list[Line2D]:
    """Legend entries for those marks that occur."""
    present = set(statuses)
    return [
        Line2D([], [], color=GREY, marker=symbol, ms=_MARK[status], mew=_PEN[status], ls="", label=label)
        for status, (symbol, label) in EDGE.items()
        if status in present
    ]


def legend(figure: Figure, entries: Iterable[Any], columns: int, where: str = "center") -> None:
    """A legend above the axes, where constrained layout puts nothing else; an entry is a handle, or a pair of (handles, label)."""
    listed = list(entries)
    handles = [entry[0] if isinstance(entry, tuple) else entry for entry in listed]
    labels = [entry[1] if isinstance(entry, tuple) else str(entry.get_label()) for entry in listed]
    loc: Any = f"outside upper {where}"
    figure.legend(handles, labels, loc=loc, ncols=columns)
