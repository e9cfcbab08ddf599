"""How figures look: sizes, colours, markers and lines, and how they write numbers and names."""

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from engramctl.present.format import counted, format_flops
from engramctl.results.trial_table import Series, finished

COLUMN = 3.4
"""Width of a journal's column, inches."""
PAGE = 6.9
"""Width of a journal's page, inches."""

PAPER_OPTIMUM = (0.75, 0.80)
"""Range of rho in which the paper finds the lowest validation loss."""

RHO = "\N{GREEK SMALL LETTER RHO}"
MINUS = "\N{MINUS SIGN}"
GREY = "0.35"
PAPER_GREY = "0.9"
BAND_ALPHA = 0.2
POINT = 3.0
"""Size of a trial's marker, points."""
NATS = "validation loss (nats per token)"
INTERVAL: Any = {"elinewidth": 1.0, "capsize": 2.2, "capthick": 1.0}
"""How the bars of an interval are drawn."""

RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "axes.titlepad": 4,
    # Nothing but the title is above the axes, so its place is known; searching for one takes a sixth of the drawing time.
    "axes.titley": 1.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 6.5,
    "legend.handlelength": 2.2,
    "legend.handletextpad": 0.6,
    "legend.borderpad": 0.15,
    "legend.columnspacing": 1.4,
    "legend.labelspacing": 0.35,
    "legend.borderaxespad": 0.2,
    "svg.hashsalt": "engramctl",
    # Text in a PDF stays text: journals ask for TrueType fonts.
    "pdf.fonttype": 42,
    # Names of variants and tasks are text, whatever dollars and backslashes are in them.
    "text.parse_math": False,
}

_NOT_OURS = (
    "backend",
    "interactive",
    "toolbar",
    "webagg.",
    "tk.",
    "figure.max_open_warning",
    "savefig.directory",
    "timezone",
    "docstring.",
)
"""Settings about windows and notebooks, which have no effect on a figure."""


@lru_cache(maxsize=1)
def _settings() -> Any:
    default = matplotlib.rcParamsDefault
    return {name: default[name] for name in matplotlib.rcParams if name in default and not name.startswith(_NOT_OURS)} | RC


def drawing() -> AbstractContextManager[None]:
    """The settings under which figures are made and written: matplotlib's own defaults and ours, whatever a matplotlibrc says."""
    return matplotlib.rc_context(_settings())


class Style(NamedTuple):
    """The look of a series: marker and line tell series apart as well as the colour does."""

    color: str
    marker: str
    line: Any


# The palette of Okabe & Ito (2008) without yellow, which is lost on white, ordered so that neighbours also differ in lightness.
STYLES = (
    Style("#0072B2", "o", "-"),
    Style("#D55E00", "s", "--"),
    Style("#009E73", "^", "-."),
    Style("#CC79A7", "D", ":"),
    Style("#56B4E9", "v", (0, (6, 1.5))),
    Style("#E69F00", "P", (0, (3, 1, 1, 1, 1, 1))),
    Style("#000000", "X", (0, (1, 2))),
)


def style(i: int) -> Style:
    """Style of the i-th series."""
    return STYLES[i % len(STYLES)]


def signed(value: float, digits: int = 3) -> str:
    """+0.012 or −0.012, with a minus as wide as the plus."""
    text = f"{value:+.{digits}f}"
    # A zero has no sign, whichever side it was rounded from.
    return text[1:] if not float(text) else text.replace("-", MINUS)


def interval_text(low: float, high: float, digits: int = 3) -> str:
    """(−0.001, +0.025)"""
    return f"({signed(low, digits)}, {signed(high, digits)})"


def power_of_ten(exponent: int) -> str:
    """12 -> 10¹²."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def flops_label(flops: float) -> str:
    """8.2e+12 -> 8.2×10¹²."""
    mantissa, _, exponent = format_flops(flops).partition("e")
    power = power_of_ten(int(exponent))
    return power if mantissa == "1" else f"{mantissa}×{power}"


def series_title(series: Series) -> str:
    """1m, 8.2×10¹² FLOPs, wider."""
    return ", ".join([series.size, f"{flops_label(series.budget_flops)} FLOPs", *([series.variant] if series.variant else [])])


def finished_seeds(trials: pd.DataFrame) -> str:
    """How many seeds have finished: 2 seeds."""
    return counted(finished(trials)["seed"].nunique(), "seed")


def line_handle(label: str, look: Style) -> Line2D:
    """Legend entry of a series."""
    return Line2D([], [], color=look.color, marker=look.marker, linestyle=look.line, lw=1.2, ms=POINT, mfc="white", mew=0.7, label=label)


def point_handle(label: str, look: Style) -> Line2D:
    """Legend entry of single trials."""
    return Line2D([], [], color=look.color, marker=look.marker, linestyle="", ms=POINT, mfc="white", mew=0.7, label=label)


def band_handle(label: str, look: Style) -> tuple[Any, str]:
    """Legend entry of a curve with its band: the handles to draw on top of each other, and the label."""
    line = Line2D([], [], color=look.color, linestyle=look.line, lw=1.2)
    return (Patch(facecolor=look.color, alpha=BAND_ALPHA, lw=0), line), label


def draw_trials(axes: Any, x: Any, loss: Any, look: Style) -> None:
    """A point for each trial."""
    axes.plot(x, loss, color=look.color, linestyle="", marker=look.marker, ms=POINT, mfc="white", mew=0.7, zorder=3)
