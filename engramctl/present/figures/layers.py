"""Loss against the layer that has the memory (paper, Figure 5)."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engramctl.findings.fits import SweepFits
from engramctl.findings.layers import LayerLoss, layers_of
from engramctl.present.figures.panels import Edges, edge_handles, grid, label_axes, legend
from engramctl.present.figures.style import BAND_ALPHA, GREY, INTERVAL, NATS, POINT, RHO, STYLES, Style, drawing, flops_label
from engramctl.present.format import format_rho


def layers_figure(wanted: pd.DataFrame, fits: SweepFits) -> Figure:
    """Validation loss against the layer of a single module; several modules together are horizontal lines.

    One panel per size, budget, rho and choice of the other axes. Every seed is a small point. The 95 % intervals are those of the
    difference from the mean over the single layers: they serve to compare layers with each other, not losses with those on another text.
    Trials without a loss are marked at the edges, those of several modules to the right of the last layer.
    """
    panels: dict[tuple[Any, ...], list[LayerLoss]] = {}
    for one in fits.layers:
        panels.setdefault((one.size, one.budget_flops, one.rho, one.others), []).append(one)
    with drawing():
        figure, all_axes = grid(len(panels), height=1.9, extra=0.8, single=2.9)
        for axes, group in zip(all_axes, panels.values(), strict=True):
            _draw_panel(axes, group, wanted)
        look = STYLES[0]
        entries: list[Any] = [
            Line2D([], [], color=look.color, marker="o", ms=4, lw=1.0, label="mean, 95 % interval"),
            Line2D([], [], color=GREY, marker="o", ms=2, ls="", label="one seed"),
        ]
        legend(figure, [*entries, *edge_handles(wanted["status"])], 3)
        label_axes(figure, all_axes, "layer that has the memory (counted from 0)", NATS)
    return figure


def _draw_panel(axes: Axes, group: list[LayerLoss], wanted: pd.DataFrame) -> None:
    single = [one for one in group if len(one.layers) == 1]
    several = [one for one in group if len(one.layers) != 1]
    last = max([one.layers[0] for one in single], default=0)
    first = min([one.layers[0] for one in single], default=0)
    places = {one.layers: float(one.layers[0]) for one in single} | {one.layers: last + 0.9 for one in several}
    edges = Edges(axes, height=0.06)
    _draw_single([one for one in single if one.losses], axes)
    for i, one in enumerate(one for one in several if one.losses):
        _draw_several(axes, one, STYLES[(i + 1) % len(STYLES)], (first - 0.4, last + 0.5), last + 0.55)
    edges.mark(_placed(wanted, group[0], places), "at")
    axes.set_xlim(first - 0.4, last + (1.3 if several else 0.4))
    axes.set_xticks([one.layers[0] for one in single])
    axes.spines["bottom"].set_bounds(first - 0.4, last + 0.4)
    edges.fit(*axes.dataLim.intervaly)
    axes.ticklabel_format(axis="y", useOffset=False)
    head = group[0]
    others = f", {head.others}" if head.others else ""
    axes.set_title(f"{head.size}, {flops_label(head.budget_flops)} FLOPs, {RHO} = {format_rho(head.rho)}{others}", loc="left")


def _interval(one: LayerLoss) -> tuple[float, float]:
    """The loss with the interval of its difference from the other layers."""
    if one.difference is None:
        return one.loss, one.loss
    interval = one.difference.paired.difference
    return one.loss + min(interval.low - interval.estimate, 0.0), one.loss + max(interval.high - interval.estimate, 0.0)


def _draw_single(found: list[LayerLoss], axes: Axes) -> None:
    if not found:
        return
    look = STYLES[0]
    x, y = [one.layers[0] for one in found], [one.loss for one in found]
    bars = [[one.loss - _interval(one)[0] for one in found], [_interval(one)[1] - one.loss for one in found]]
    axes.plot(x, y, color=look.color, lw=0.8, alpha=0.6, zorder=1)
    axes.errorbar(x, y, bars, color=look.color, marker="o", ms=POINT + 1, ls="", zorder=3, **INTERVAL)
    seeds = [(one.layers[0] + 0.13, loss) for one in found if len(one.losses) > 1 for loss in one.losses.values()]
    if seeds:
        axes.plot(*zip(*seeds, strict=True), marker="o", ms=1.8, color=GREY, ls="", zorder=2)


def _draw_several(axes: Axes, one: LayerLoss, look: Style, ends: tuple[float, float], label_at: float) -> None:
    low, high = _interval(one)
    axes.fill_between(ends, [low, low], [high, high], color=look.color, alpha=BAND_ALPHA, lw=0, zorder=0)
    axes.plot(ends, [one.loss, one.loss], color=look.color, ls=look.line, lw=1.2, zorder=1)
    text = "layers\n" + ", ".join(str(layer) for layer in one.layers)
    axes.text(label_at, one.loss, text, color=look.color, fontsize=6.5, va="center", linespacing=1.0)


def _placed(wanted: pd.DataFrame, head: LayerLoss, places: dict[tuple[int, ...], float]) -> pd.DataFrame:
    """The trials of a panel, with the position of their mark in the column `at`."""
    here = wanted[(wanted["size"] == head.size) & (wanted["budget_flops"] == head.budget_flops) & (wanted["rho"] == head.rho)]
    keys = [layers_of(axes) for axes in here["axes"]]
    mine = [key is not None and key[1] == head.others for key in keys]
    return here[mine].assign(at=[places[key[0]] for key in keys if key is not None and key[1] == head.others])
