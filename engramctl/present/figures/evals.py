"""Benchmark scores and bits per byte of the right answers against rho."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engramctl.findings.scores import task_label
from engramctl.present.figures.panels import legend, new_figure
from engramctl.present.figures.style import COLUMN, GREY, INTERVAL, PAGE, RHO, draw_trials, drawing, line_handle, series_title, style
from engramctl.results.trial_table import SERIES, Series, of_series

_MOST_COLUMNS = 4
_HEIGHT = 1.35
"""Height of a panel, inches."""
_Z = 1.96


def evals_figure(scores: pd.DataFrame) -> Figure:
    """Two panels per task: its score, and bits per byte of the right answers; one line per size, budget and variant.

    Points are trials, lines join their means, and bars are 95 % intervals of the mean over the items (the points show the spread between
    seeds). The dashed line is chance, the dotted one the score of an echo.

    Args:
        scores: from `findings.scores.comparable`; at least one row.
    """
    tasks = list(dict.fromkeys(task_label(row) for _, row in scores.iterrows()))
    labels = scores.apply(task_label, axis=1)
    keys = sorted({Series(*key) for key in zip(*(scores[name] for name in SERIES), strict=True)})
    columns = min(len(tasks), _MOST_COLUMNS)
    blocks = -(-len(tasks) // columns)
    with drawing():
        width = COLUMN if columns == 1 else min(PAGE, 0.5 + 1.65 * columns)
        figure = new_figure(width, 0.7 + 2 * _HEIGHT * blocks)
        grid = figure.subplots(2 * blocks, columns, squeeze=False)
        for unused in [axes for line in grid for axes in line][len(tasks) + (blocks - 1) * columns :] if blocks > 1 else []:
            unused.set_visible(False)
        for i, task in enumerate(tasks):
            mine = scores[labels == task]
            top, bottom = grid[2 * (i // columns)][i % columns], grid[2 * (i // columns) + 1][i % columns]
            top.set_visible(True)
            bottom.set_visible(True)
            top.set_title(_title(task, mine), loc="left")
            for axes, column, name in ((top, "score", _unit(mine)), (bottom, "bpb", "bits per byte")):
                _draw(axes, mine, keys, column)
                axes.set_ylabel(name if i % columns == 0 or (column == "score" and not mine["is_percent"].all()) else "")
                axes.set_xlim(-0.04, 1.04)
            top.tick_params(labelbottom=False)
        figure.supxlabel(f"{RHO}, the experts' share", fontsize="medium")
        entries: list[Any] = [line_handle(series_title(key), style(i)) for i, key in enumerate(keys)]
        if scores["chance"].notna().any():
            entries.append(Line2D([], [], color=GREY, lw=0.8, ls="--", label="chance"))
        if scores["floor"].notna().any():
            entries.append(Line2D([], [], color=GREY, lw=0.8, ls=":", label="echo of the prompt's end"))
        legend(figure, entries, 2 if columns == 1 else 3)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, keys: list[Series], column: str) -> None:
    for i, key in enumerate(keys):
        look = style(i)
        mine = of_series(rows[rows[column].notna()], key)
        if mine.empty:
            continue
        draw_trials(axes, mine["rho"], mine[column], look)
        means = mine.groupby("rho").agg(y=(column, "mean"), n=(column, "size"), error=("stderr", "mean")).reset_index()
        axes.plot(means["rho"], means["y"], color=look.color, ls=look.line, lw=1.2, zorder=2)
        if column == "score":
            bars = _Z * means["error"] / means["n"].map(math.sqrt)
            axes.errorbar(means["rho"], means["y"], yerr=bars.fillna(0), color=look.color, ls="", zorder=1, **INTERVAL)
    if column == "score":
        for name, line in (("floor", ":"), ("chance", "--")):
            for level in sorted(rows[name].dropna().unique()):
                axes.axhline(level, color=GREY, lw=0.8, ls=line, zorder=0)
    if rows[column].isna().all():
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_yticks([])
    axes.margins(y=0.15)
    axes.locator_params(axis="y", nbins=5)


def _title(task: str, rows: pd.DataFrame) -> str:
    cut = rows["truncated_share"].max()
    return task + (f"\n{100 * cut:.0f} % truncated" if cut > 0 else "")


def _unit(rows: pd.DataFrame) -> str:
    return "score (%)" if rows["is_percent"].all() else str(rows["metric"].iloc[0])
