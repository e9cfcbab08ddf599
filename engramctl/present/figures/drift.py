"""Whether the best rho, and the gain there, change with the budget."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from engramctl.findings.fits import SweepFits
from engramctl.present.figures.panels import Edges, edge_handles, legend, new_figure
from engramctl.present.figures.style import (
    BAND_ALPHA,
    COLUMN,
    GREY,
    INTERVAL,
    MINUS,
    PAPER_GREY,
    PAPER_OPTIMUM,
    RHO,
    Style,
    drawing,
    flops_label,
    line_handle,
    style,
)
from engramctl.present.verdicts import short_drift
from engramctl.results.trial_table import series_order

if TYPE_CHECKING:
    from engram.fitting.results import Line

_BEYOND = 3.0
"""How far beyond the largest budget the line of the joint fit is drawn, as a factor."""
_APART = 0.025
"""Distance between the points of two models at the same budget, as a share of the axis."""


def drift_figure(wanted: pd.DataFrame, fits: SweepFits) -> Figure:
    """The lowest point's rho, and the gain over rho = 1, against the budget, with 95 % intervals; one line per size and variant.

    Points and bars are the fits of each budget by itself (convex intervals); line and band of the upper panel are the fit of all budgets
    together, dashed beyond them. Trials without a loss are marked at their budget. A budget without a fit has no point.
    """
    models = list(dict.fromkeys((key.size, key.variant) for key in series_order(wanted)))
    budgets = sorted(wanted["budget_flops"].unique().tolist())
    with drawing():
        figure = new_figure(COLUMN, 3.7 + 0.25 * (len(models) - 1))
        upper, lower = figure.subplots(2, 1, sharex=True)
        edges = [Edges(axes, height=0.08) for axes in (upper, lower)]
        edges[0].mark(wanted, "budget_flops")
        for i, model in enumerate(models):
            found = {key.budget_flops: fit for key, fit in fits.allocation.items() if (key.size, key.variant) == model}
            shift = (i - (len(models) - 1) / 2) * _APART * (math.log10(budgets[-1] / budgets[0]) or 1)
            drift = fits.drift.get(model)
            band = drift.band if drift else None
            if band:
                _draw_line(upper, band, max(budgets), style(i))
            for axes, name in ((upper, "rho_star"), (lower, "gain")):
                points = {budget * 10**shift: getattr(fit, name) for budget, fit in found.items()}
                _draw_model(axes, points, style(i), joined=axes is lower or band is None)
        upper.axhspan(*PAPER_OPTIMUM, color=PAPER_GREY, lw=0, zorder=0)
        lower.axhline(0, color=GREY, lw=0.6, zorder=0)
        for axes, room in ((upper, edges[0]), (lower, edges[1])):
            low, high = axes.dataLim.intervaly
            room.fit(min(low, 0.0), max(high, 0.0 if axes is lower else PAPER_OPTIMUM[1]))
        upper.set_ylabel(f"{RHO} of the lowest loss")
        lower.set_ylabel(f"gain over {RHO} = 1\n(nats per token)")
        lower.set_xlabel("training compute (FLOPs, log scale)")
        _budget_axis(lower, budgets, beyond=any(drift.band for drift in fits.drift.values()))
        figure.align_ylabels([upper, lower])
        legend(figure, [line_handle(_label(model, fits), style(i)) for i, model in enumerate(models)], 1, "left")
        paper = Patch(facecolor=PAPER_GREY, label=f"paper: {PAPER_OPTIMUM[0]:.2f}\N{EN DASH}{PAPER_OPTIMUM[1]:.2f}")
        legend(figure, [paper, *edge_handles(wanted["status"])], 1, "right")
    return figure


def _draw_line(axes: Axes, band: "Line", largest: float, look: Style) -> None:
    """The joint fit, to a little beyond the largest budget."""
    x = np.unique(np.append(band.budget[band.budget < largest * _BEYOND], [largest, largest * _BEYOND]))
    intervals = [band.at(budget) for budget in x]
    rho, low, high = (np.array([getattr(one, name) for one in intervals]) for name in ("estimate", "low", "high"))
    for part, line, alpha in ((x <= largest, look.line, BAND_ALPHA), (x >= largest, (0, (2, 1.6)), BAND_ALPHA / 2)):
        axes.plot(x[part], rho[part], color=look.color, ls=line, lw=0.9, zorder=2)
        axes.fill_between(x[part], low[part], high[part], color=look.color, alpha=alpha, lw=0, zorder=1)


def _draw_model(axes: Axes, found: dict[float, Any], look: Style, joined: bool) -> None:
    points = {x: interval for x, interval in sorted(found.items()) if math.isfinite(interval.estimate)}
    if not points:
        return
    x, y = list(points), [interval.estimate for interval in points.values()]
    if joined:
        axes.plot(x, y, color=look.color, ls=look.line, lw=0.9, zorder=2)
    bars = [[max(i.estimate - i.low, 0.0) for i in points.values()], [max(i.high - i.estimate, 0.0) for i in points.values()]]
    axes.errorbar(x, y, bars, color=look.color, marker=look.marker, ms=3.6, mfc="white", mew=0.8, ls="", zorder=3, **INTERVAL)


def _budget_axis(axes: Axes, budgets: list[float], beyond: bool) -> None:
    """A logarithmic axis with a tick at each budget, labelled where the labels don't touch; with room `beyond` for what is foretold."""
    axes.set_xscale("log")
    room = math.log10(budgets[-1] / budgets[0]) or 1.0
    last = budgets[-1] * (_BEYOND if beyond else 1.0)
    axes.set_xlim(budgets[0] * 10 ** (-0.12 * room), last * 10 ** ((0.03 if beyond else 0.12) * room))
    shown = [budgets[0]]
    for budget in budgets[1:]:
        if math.log10(budget / shown[-1]) > 0.17 * room:
            shown.append(budget)
    axes.set_xticks(budgets, minor=True)
    axes.set_xticks(shown)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: flops_label(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label(model: tuple[str, str], fits: SweepFits) -> str:
    name = ", ".join(part for part in model if part)
    drift = fits.drift.get(model)
    return f"{name}\n{short_drift(drift).replace('-', MINUS)}" if drift else name
