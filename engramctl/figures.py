"""Figures from tables: no training imports, no pyplot, the same bytes for the same data."""

from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from engram.errors import UserError
from engramctl.store import write_atomically
from engramctl.summary import SERIES, allocation_summary, format_flops, format_rho

PAPER_OPTIMUM = (0.75, 0.80)
"""Where the paper finds the lowest validation loss."""

_Style = tuple[str, str, Any]
_Marks = tuple[str, str, Counter[float]]

# Okabe & Ito (2008), without yellow, which is lost on white; every colour has a marker and a line of its own for black and white.
_STYLES: list[_Style] = [
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#56B4E9", "v", (0, (6, 1.5))),
    ("#E69F00", "P", (0, (3, 1, 1, 1, 1, 1))),
    ("#000000", "X", (0, (1, 2))),
]
_GREY = "0.35"
_RHO = "\N{GREEK SMALL LETTER RHO}"
_RC: Any = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.handlelength": 2.4,
    "svg.hashsalt": "engramctl",
}
_EDGE = {"diverged": ("x", "diverged"), "failed": ("$!$", "failed"), "missing": ("$?$", "missing (not run)")}
"""Mark and label of trials without a loss: missing ones at the bottom edge, the others at the top, where a lost loss went."""
_FLAT = 0.3
"""A series that fills less of a common axis than this looks flat there: every series then gets its own panel."""


def allocation_figure(trials: pd.DataFrame, missing: pd.DataFrame) -> Figure:
    """Validation loss against rho, one series for each size and budget.

    `trials` are rows of the trials table, any status; `missing` are trials that have no row (columns size, budget_flops, rho).
    Every seed is a point, the mean over seeds a line, the lowest mean a star; trials without a loss are marks at the edges.
    Series whose losses are too far apart for one axis get a panel each.
    """
    summary = allocation_summary(trials)
    keys = list(dict.fromkeys([*_keys(summary), *_keys(missing)]))
    common = len(keys) > 1 and not _needs_panels(summary)
    with matplotlib.rc_context(_RC):
        figure, panels = _panels(1 if common else len(keys))
        series = [(key, _STYLES[i % len(_STYLES)] if common else _STYLES[0]) for i, key in enumerate(keys)]
        for i, axes in enumerate(panels):
            marks = []
            for key, style in series if common else series[i : i + 1]:
                points = _of(summary, key)
                _draw_series(axes, _of(trials, key), points, _of(missing, key), style)
                marks += _edge_marks(_of(trials, key), _of(missing, key), style[0] if common else _GREY)
                if not common:
                    axes.set_title(_series_label(key, points), loc="left")
            _finish_axes(axes, marks, hint=i >= len(panels) - _columns(len(panels)), height=0.06 if len(panels) == 1 else 0.1)
        handles = [_series_handle(_series_label(key, _of(summary, key)), style) for key, style in series] if common else []
        absent = [*trials["status"].unique(), *(["missing"] if len(missing) else [])]
        handles += _shared_handles((_GREY, "o", "-") if common else _STYLES[0], absent, bool(summary["is_minimum"].any()))
        # Above the axes: constrained layout puts nothing else there, and the panels keep their labels below.
        figure.legend(handles=handles, loc="outside upper center", ncols=2 if len(panels) == 1 else 3, columnspacing=1.5)
        figure.supxlabel(_x_label(summary), fontsize=8)
        figure.supylabel("validation loss (nats per token)", fontsize=8)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` (200 dpi) and `<name>.svg`, each atomically; equal figures give equal bytes.

    UserError when the folder can't be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("png", "svg"):
            buffer = BytesIO()
            with matplotlib.rc_context(_RC):
                figure.savefig(buffer, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
            paths.append(folder / f"{name}.{kind}")
            write_atomically(paths[-1], buffer.getvalue())
    except OSError as problem:
        raise UserError(f"figures can't be written to {folder}: {problem.strerror}") from None
    return paths


def _columns(n_panels: int) -> int:
    """Panels side by side."""
    return 1 if n_panels == 1 else 2 if n_panels <= 4 else 3


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    columns = _columns(n)
    rows = -(-n // columns)
    size = (4.4, 3.7) if n == 1 else (6.8, 1.2 + 1.9 * rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    flat = list(grid.flat)
    for unused in flat[n:]:
        unused.remove()
    return figure, flat[:n]


def _keys(frame: pd.DataFrame) -> list[tuple[str, float]]:
    return list(dict.fromkeys(zip(frame["size"], frame["budget_flops"], strict=True)))


def _of(frame: pd.DataFrame, key: tuple[str, float]) -> pd.DataFrame:
    return frame[(frame["size"] == key[0]) & (frame["budget_flops"] == key[1])]


def _needs_panels(summary: pd.DataFrame) -> bool:
    done = summary[summary["n_seeds"] > 0]
    ranges = done.groupby(SERIES).agg(low=("val_loss_min", "min"), high=("val_loss_max", "max"), n=("rho", "size"))
    total = ranges["high"].max() - ranges["low"].min()
    spans = (ranges["high"] - ranges["low"])[ranges["n"] > 1]
    return len(ranges) > 1 and len(spans) > 0 and bool(spans.min() < _FLAT * total)


def _series_label(key: tuple[str, float], points: pd.DataFrame) -> str:
    n = len({seed for seeds in points["seeds"] for seed in seeds})
    return f"{key[0]}, {format_flops(key[1])} FLOPs, {n} seed{'' if n == 1 else 's'}"


def _draw_series(axes: Axes, trials: pd.DataFrame, points: pd.DataFrame, missing: pd.DataFrame, style: _Style) -> None:
    color, marker, line = style
    done = trials[trials["status"] == "finished"]
    # A rho without a finished trial breaks the line: nothing is known there.
    means = points.set_index("rho")["val_loss"].astype(float)
    line_over = means.reindex(sorted({*means.index, *missing["rho"]}))
    axes.plot(line_over.index, line_over, color=color, linestyle=line, linewidth=1.2, marker="_", ms=5, zorder=2)
    axes.plot(done["rho"], done["val_loss"], color=color, linestyle="", marker=marker, ms=3.6, mfc="white", mew=0.8, zorder=3)
    means = means.dropna()
    for rho in points.loc[points["is_minimum"].astype(bool), "rho"]:
        axes.plot([rho], [means[rho]], color=color, marker="*", ms=10, mec="black", mew=0.6, linestyle="", zorder=4)
        word = "lowest" if rho in (means.index.min(), means.index.max()) else "min"
        axes.annotate(
            f"{word} {means[rho]:.3f} at {_RHO} = {format_rho(rho)}",
            (rho, done["val_loss"].min()),
            xytext=(0, -7),
            textcoords="offset points",
            ha="left" if rho < 0.3 else "right" if rho > 0.6 else "center",
            va="top",
            fontsize=7,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            zorder=5,
        )


def _edge_marks(trials: pd.DataFrame, missing: pd.DataFrame, color: str) -> list[_Marks]:
    """Status, colour and number of trials at each rho, for every status that one series has trials of."""
    frames = {"missing": missing, **{status: trials[trials["status"] == status] for status in ("diverged", "failed")}}
    return [(status, color, Counter(frame["rho"].tolist())) for status, frame in frames.items() if len(frame)]


def _finish_axes(axes: Axes, marks: Sequence[_Marks], hint: bool, height: float) -> None:
    """Draw the paper's optimum and the marks at the edges, one row of `height` (of the axes) for each status and series, and make room."""
    axes.axvspan(*PAPER_OPTIMUM, color="0.9", linewidth=0, zorder=0)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    room = {"bottom": 0.02, "top": 0.02}
    where = axes.get_xaxis_transform()
    for status, color, counts in marks:
        edge = "bottom" if status == "missing" else "top"
        y = room[edge] + height / 2
        y = y if edge == "bottom" else 1 - y
        for rho, n in counts.items():
            axes.plot([rho], [y], marker=_EDGE[status][0], ms=4.5, mew=0.9, color=color, linestyle="", transform=where, zorder=6)
            if n > 1:
                where_text: Any = {"xycoords": where, "xytext": (0, 3), "textcoords": "offset points"}
                axes.annotate(str(n), (rho, y), ha="center", fontsize=5, color=color, **where_text)
        room[edge] += height
    low, high = axes.dataLim.intervaly
    if low <= high:
        # The label under the lowest mean needs room too, and a single point a range of its own.
        span = max(high - low, 0.01)
        whole = span / (0.96 - 1.6 * height - room["bottom"] - room["top"])
        axes.set_ylim(low - whole * (room["bottom"] + 1.6 * height), high + whole * (room["top"] + 0.04))
    axes.ticklabel_format(axis="y", useOffset=False)
    if hint:
        for x, side, text in ((0.0, "left", "← more memory"), (1.0, "right", "more experts →")):
            axes.annotate(
                text,
                (x, 0),
                xycoords="axes fraction",
                xytext=(0, -17),
                textcoords="offset points",
                ha=side,
                va="top",
                fontsize=7,
                color=_GREY,
                annotation_clip=False,
            )


def _x_label(summary: pd.DataFrame) -> str:
    label = f"{_RHO}: share of inactive parameters in routed experts"
    seeds = summary.groupby(SERIES)["n_seeds"].max()
    if (seeds == 1).any():
        which = "one seed" if (seeds == 1).all() else "series of one seed"
        label += f"\n{which}: differences between neighbours may be noise"
    return label


def _series_handle(label: str, style: _Style) -> Line2D:
    color, marker, line = style
    return Line2D([], [], color=color, marker=marker, linestyle=line, linewidth=1.2, ms=3.6, mfc="white", label=label)


def _shared_handles(style: _Style, statuses: Sequence[str], minimum: bool) -> list[Any]:
    color, marker, line = style
    handles: list[Any] = [
        Line2D([], [], color=color, marker=marker, linestyle="", ms=3.6, mfc="white", mew=0.8, label="one trial (seed)"),
        Line2D([], [], color=color, linestyle=line, linewidth=1.2, marker="_", ms=5, label="mean over seeds"),
    ]
    if minimum:
        handles.append(Line2D([], [], color=color, marker="*", ms=8, mec="black", mew=0.6, linestyle="", label="lowest mean"))
    for status in [s for s in _EDGE if s in statuses]:
        symbol, label = _EDGE[status]
        handles.append(Line2D([], [], color=_GREY, marker=symbol, ms=5, mew=0.9, linestyle="", label=label))
    low, high = PAPER_OPTIMUM
    handles.append(Patch(facecolor="0.9", label=f"paper's optimum, {low:.2f} to {high:.2f}"))
    return handles
