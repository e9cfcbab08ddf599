"""Loss against rho (paper, Figure 3 left)."""

import textwrap
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from engramctl.findings.allocation import allocation_summary
from engramctl.findings.fits import SweepFits
from engramctl.present.figures.panels import Edges, edge_handles, grid, is_lowest, label_axes, legend, n_columns
from engramctl.present.figures.style import (
    BAND_ALPHA,
    GREY,
    NATS,
    PAPER_GREY,
    PAPER_OPTIMUM,
    RHO,
    Style,
    band_handle,
    draw_trials,
    drawing,
    finished_seeds,
    line_handle,
    point_handle,
    series_title,
    style,
)
from engramctl.present.format import format_rho
from engramctl.present.verdicts import short_answer
from engramctl.results.trial_table import MISSING, SERIES, Series, finished, of_series, series_order

if TYPE_CHECKING:
    from engram.fitting.results import AllocationFit

_FLAT = 0.3
"""A series that spans less of a common axis than this would look flat, so every series gets its own panel."""
_COMMON = 4
"""Most series, with their bands, that fit on common axes."""
_RANGE: dict[str, Any] = {"alpha": 0.35, "lw": 6.0, "solid_capstyle": "butt"}
"""Look of the range that is near the best."""
_TITLE_WIDTH = {1: 56, 2: 56, 3: 37}
"""Characters in a line of a title, by the number of panels side by side."""


def allocation_figure(wanted: pd.DataFrame, fits: SweepFits) -> Figure:
    """Validation loss against rho, one series for each size, budget and variant.

    `wanted` is `SweepResults.wanted`. Every seed is a point; a fitted curve has its 95 % band, with the interval of its lowest point as a
    bar below. Where there are too few points for a fit, a line joins the means and a star marks the lowest. Trials without a loss are
    marked at the edges. Series whose losses are too far apart for common axes get a panel each.
    """
    keys = series_order(wanted)
    summary = allocation_summary(wanted[wanted["status"] != MISSING])
    common = 1 < len(keys) <= _COMMON and not _needs_panels(summary)
    panels = [keys] if common else [[key] for key in keys]
    fitted = {key: fits.allocation.get(key) for key in keys}
    with drawing():
        figure, all_axes = grid(len(panels), height=1.75, extra=0.75, single=2.9 + 0.25 * (len(keys) if common else 0))
        looks = {key: style(i if common else 0) for i, key in enumerate(keys)}
        for i, (axes, group) in enumerate(zip(all_axes, panels, strict=True)):
            edges = Edges(axes, height=0.055 if len(panels) == 1 else 0.08)
            for key in group:
                trials = of_series(wanted, key)
                _draw_series(axes, trials, of_series(summary, key), fitted[key], looks[key])
                edges.mark(trials, "rho", looks[key].color if common else GREY)
            if not common:
                axes.set_title(_title(wanted, group[0], fitted[group[0]], _TITLE_WIDTH[n_columns(len(panels))]), loc="left")
            _finish(axes, edges, {key: fitted[key] for key in group}, looks, hint=is_lowest(i, len(panels)))
        if common:
            series = [line_handle(_title(wanted, key, fitted[key], 36), looks[key]) for key in keys]
            legend(figure, series, 1, "left")
            legend(figure, _shared_entries(wanted, fitted, summary, Style(GREY, "o", "-")), 1, "right")
        else:
            shared = _shared_entries(wanted, fitted, summary, looks[keys[0]])
            legend(figure, shared, 2 if len(panels) == 1 else 4)
        label_axes(figure, all_axes, _x_label(summary), NATS, pad=11)
    return figure


def _needs_panels(summary: pd.DataFrame) -> bool:
    done = summary[summary["n_seeds"] > 0]
    by_series = done.groupby(SERIES)
    ranges = by_series.agg(low=("val_loss_min", "min"), high=("val_loss_max", "max"), n=("rho", "size"))
    total = ranges["high"].max() - ranges["low"].min()
    spans = (ranges["high"] - ranges["low"])[ranges["n"] > 1]
    return len(ranges) > 1 and len(spans) > 0 and bool(spans.min() < _FLAT * total)


def _title(wanted: pd.DataFrame, key: Series, fit: "AllocationFit | None", width: int) -> str:
    label = textwrap.fill(f"{series_title(key)}, {finished_seeds(of_series(wanted, key))}", width)
    if fit is None:
        return label
    said = "\n".join(textwrap.fill(line.replace("= ", "=\N{NO-BREAK SPACE}"), width) for line in short_answer(fit, RHO))
    return f"{label}\n{said}"


def _draw_series(axes: Axes, trials: pd.DataFrame, points: pd.DataFrame, fit: "AllocationFit | None", look: Style) -> None:
    done = finished(trials)
    draw_trials(axes, done["rho"], done["val_loss"], look)
    if fit is not None and fit.band is not None:
        band = fit.band
        axes.fill_between(band.x, band.low, band.high, color=look.color, alpha=BAND_ALPHA, lw=0, zorder=1)
        axes.plot(band.x, band.loss, color=look.color, ls=look.line, lw=1.2, zorder=2)
        return
    # A rho without a finished trial breaks the line, as nothing is known there.
    means = points.set_index("rho")["val_loss"].astype(float)
    line = means.reindex(sorted({*means.index, *trials["rho"]}))
    axes.plot(line.index, line, color=look.color, ls=look.line, lw=1.2, marker="_", ms=5, zorder=2)
    means = means.dropna()
    for rho in points.loc[points["is_minimum"].astype(bool), "rho"]:
        axes.plot([rho], [means[rho]], color=look.color, marker="*", ms=9, mec="black", mew=0.6, ls="", zorder=4)
        word = "lowest" if rho in (means.index.min(), means.index.max()) else "min"
        axes.annotate(
            f"{word} {means[rho]:.3f} at {RHO} = {format_rho(rho)}",
            (rho, done["val_loss"].min()),
            xytext=(0, -6),
            textcoords="offset points",
            ha="left" if rho < 0.3 else "right" if rho > 0.6 else "center",
            va="top",
            fontsize=6.5,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            zorder=5,
        )


def _finish(axes: Axes, edges: Edges, fitted: dict[Series, Any], looks: dict[Series, Style], hint: bool) -> None:
    """Draw the paper's optimum and the bars of the lowest points, and set limits and labels."""
    axes.axvspan(*PAPER_OPTIMUM, color=PAPER_GREY, lw=0, zorder=0)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    bars = {key: fit for key, fit in fitted.items() if fit is not None and fit.band is not None}
    rows = {key: edges.row("bottom") for key in reversed(bars)}
    low, high = axes.dataLim.intervaly
    edges.fit(low, high, label=0.0 if len(bars) == len(fitted) else 1.4 * edges.height)
    low, high = axes.get_ylim()
    where: Any = axes.get_xaxis_transform()
    for key, fit in bars.items():
        star, look, y = fit.rho_star, looks[key], rows[key]
        near = fit.near_best
        axes.plot([near.low, near.high], [y, y], color=look.color, transform=where, zorder=3, **_RANGE)
        axes.plot([star.low, star.high], [y, y], color=look.color, lw=1.4, marker="|", ms=4.5, mew=1.0, transform=where, zorder=4)
        # Filled if it has been shown to be a minimum.
        face = look.color if fit.verdict.kind == "interior" else "white"
        axes.plot([star.estimate], [y], color=look.color, marker=look.marker, ms=4, mfc=face, mew=0.8, transform=where, zorder=5)
        axes.plot(
            [star.estimate] * 2, [low + y * (high - low), fit.loss_min.estimate], color=look.color, lw=0.6, ls=(0, (1, 1.5)), zorder=1
        )
    axes.ticklabel_format(axis="y", useOffset=False)
    if hint:
        for x, side, text in ((0.0, "left", "← more memory"), (1.0, "right", "more experts →")):
            axes.annotate(
                text, (x, 0), xycoords="axes fraction", xytext=(0, -14), textcoords="offset points",
                ha=side, va="top", fontsize=6.5, color=GREY, annotation_clip=False,
            )  # fmt: skip


def _x_label(summary: pd.DataFrame) -> str:
    label = f"{RHO}: share of inactive parameters in routed experts"
    seeds = summary.groupby(SERIES)["n_seeds"].max()
    if (seeds == 1).any():
        which = "one seed" if (seeds == 1).all() else "series of one seed"
        label += f"\n{which}: differences between neighbours may be noise"
    return label


def _shared_entries(wanted: pd.DataFrame, fitted: dict[Series, Any], summary: pd.DataFrame, look: Style) -> list[Any]:
    curves = [fit for fit in fitted.values() if fit is not None and fit.band is not None]
    entries: list[Any] = [point_handle("one trial (seed)", look)]
    if curves:
        entries.append(band_handle("fit, 95 % band", look))
        margin = curves[0].near_best.margin
        entries.append(Line2D([], [], color=look.color, label=f"within {margin:g} nats", **_RANGE))
        entries.append(Line2D([], [], color=look.color, lw=1.4, marker="|", ms=4.5, mew=1.0, label="lowest, 95 % interval"))
    if len(curves) < len(fitted):
        entries.append(Line2D([], [], color=look.color, ls=look.line, lw=1.2, marker="_", ms=5, label="mean over seeds"))
        if summary["is_minimum"].any():
            entries.append(Line2D([], [], color=look.color, marker="*", ms=7, mec="black", mew=0.6, ls="", label="lowest mean"))
    entries += edge_handles(wanted["status"])
    low, high = PAPER_OPTIMUM
    entries.append(Patch(facecolor=PAPER_GREY, label=f"paper: {low:.2f}\N{EN DASH}{high:.2f}"))
    return entries
