"""Each variant against the first, such as designs or components."""

import math
import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engramctl.findings.fits import SweepFits
from engramctl.findings.variants import Comparison
from engramctl.present.figures.panels import EDGE, draw_mark, edge_handles, legend, new_figure
from engramctl.present.figures.style import COLUMN, GREY, INTERVAL, PAGE, RHO, STYLES, drawing, flops_label, interval_text, signed
from engramctl.present.format import format_rho

_LABEL_WIDTH = 20
"""Characters in a line of a variant's name."""
_LINE = 0.13
"""Height of a line of text in a row, inches."""


def variants_figure(wanted: pd.DataFrame, fits: SweepFits) -> Figure:
    """One row per variant: its difference from the first variant, paired by seed, with its 95 % interval.

    The best is on top; where variants are compared at several rhos, each has its rows in the order of rho. Every seed is a small point.
    One panel per size and budget. The first variant is the zero line and has a row of its own. Trials without a loss are marked in their
    variant's row.
    """
    panels: dict[tuple[str, float], list[Comparison]] = {}
    for one in fits.variants:
        panels.setdefault((one.size, one.budget_flops), []).append(one)
    rows = {key: [_labels(one, group) for one in group] for key, group in panels.items()}
    heights = {key: _LINE * sum(max(2, label.count("\n") + 1) for label in labels) + 2 * _LINE for key, labels in rows.items()}
    columns = 1 if len(panels) < 3 else 2
    lines = [list(panels)[i : i + columns] for i in range(0, len(panels), columns)]
    tallest = [max(heights[key] for key in line) for line in lines]
    with drawing():
        figure = new_figure(COLUMN if columns == 1 else PAGE, 0.75 + sum(tallest) + 0.25 * len(lines))
        grid = figure.subplots(len(lines), columns, squeeze=False, height_ratios=tallest, sharex="col")
        flat = list(grid.flat)
        for unused in flat[len(panels) :]:
            unused.remove()
        for axes, (key, group) in zip(flat, panels.items(), strict=False):
            here = wanted[(wanted["size"] == key[0]) & (wanted["budget_flops"] == key[1])]
            _draw_panel(axes, group, here)
        reference = next((one.reference for one in fits.variants), "the first variant")
        label = (
            f"difference in loss to \N{LEFT SINGLE QUOTATION MARK}{reference}\N{RIGHT SINGLE QUOTATION MARK}, nats per token (better: left)"
        )
        figure.supxlabel(textwrap.fill(label, 62 if columns == 1 else 120), fontsize="medium")
        blue = STYLES[0].color
        entries: list[Any] = [
            Line2D([], [], color=blue, marker="o", ms=4, lw=1.0, label="mean, 95 % interval"),
            Line2D([], [], color=GREY, marker="o", ms=2, ls="", label="one seed"),
        ]
        legend(figure, [*entries, *edge_handles(wanted["status"])], 3)
    return figure


def _labels(one: Comparison, group: list[Comparison]) -> str:
    """Label of a row: the variant, and its rho if the panel compares at several."""
    several = len({other.reference_rho for other in group}) > 1
    where = f", {RHO} = {format_rho(one.reference_rho)}" if several else ""
    if one.rho != one.reference_rho:
        where = f" ({RHO} = {format_rho(one.rho)}){' at' + where[1:] if several else ''}"
    return textwrap.fill(f"{one.variant}{where}", _LABEL_WIDTH)


def _draw_panel(axes: Axes, group: list[Comparison], trials: pd.DataFrame) -> None:
    reference = group[0]
    several = len({one.reference_rho for one in group}) > 1
    rows: list[Comparison | None] = [None, *group] if several else _sorted(group)
    labels, numbers = [], []
    blue = STYLES[0].color
    axes.axvline(0, color=GREY, lw=0.7, zorder=1)
    for y, one in enumerate(rows):
        if one is None:
            axes.plot([0], [y], marker="D", ms=4, color=GREY, ls="", zorder=4)
            labels.append(textwrap.fill(reference.reference, _LABEL_WIDTH))
            numbers.append("reference" if several or math.isnan(reference.reference_loss) else f"loss {reference.reference_loss:.4f}")
            continue
        labels.append(_labels(one, group))
        if one.difference is None:
            numbers.append("no pair of seeds")
        else:
            interval = one.difference.paired.difference
            seeds = list(one.difference.by_seed.values())
            if len(seeds) > 1:
                axes.plot(seeds, [y + 0.22] * len(seeds), marker="o", ms=1.8, color=GREY, ls="", zorder=2)
            bars = [[max(interval.estimate - interval.low, 0)], [max(interval.high - interval.estimate, 0)]]
            axes.errorbar([interval.estimate], [y], xerr=bars, color=blue, marker="o", ms=4, ls="", zorder=3, **INTERVAL)
            numbers.append(f"{signed(interval.estimate)}\n{interval_text(interval.low, interval.high)}")
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=4)
    for y, text in enumerate(numbers):
        axes.annotate(
            text, (1, y), xycoords=axes.get_yaxis_transform(), xytext=(16, 0), textcoords="offset points", va="center", fontsize=6
        )
    for y, one in enumerate(rows):
        variant, rho = (one.variant, one.rho) if one else (reference.reference, reference.reference_rho)
        # The reference has a single row for all its rhos.
        mine = trials[(trials["variant"] == variant) & ((trials["rho"] == rho) | (several and one is None))]
        present = [status for status in EDGE if (mine["status"] == status).any()]
        for i, status in enumerate(present):
            # Marks have a column of their own between the axes and the numbers.
            n = int((mine["status"] == status).sum())
            draw_mark(axes, status, (1.03 + 0.07 * i, y), n, GREY, axes.get_yaxis_transform())
    axes.set_title(f"{reference.size}, {flops_label(reference.budget_flops)} FLOPs{_at_rho(group)}", loc="left")


def _sorted(group: list[Comparison]) -> list[Comparison | None]:
    """The best on top, None for the reference; those without a difference come last, as they can't be ranked."""

    def place(one: Comparison) -> float:
        return one.difference.paired.difference.estimate if one.difference else math.inf

    rows: list[Comparison | None] = [*sorted(group, key=place)]
    rows.insert(sum(place(one) < 0 for one in group), None)
    return rows


def _at_rho(group: list[Comparison]) -> str:
    rhos = {one.reference_rho for one in group}
    return f", {RHO} = {format_rho(rhos.pop())}" if len(rhos) == 1 else ""
