"""Loss against memory slots on a fixed backbone (paper, Figure 3 right)."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from engramctl.findings.fits import SweepFits
from engramctl.findings.memory import NoMemory
from engramctl.present.figures.panels import Edges, edge_handles, grid, label_axes, legend
from engramctl.present.figures.style import (
    BAND_ALPHA,
    GREY,
    MINUS,
    NATS,
    Style,
    band_handle,
    draw_trials,
    drawing,
    finished_seeds,
    line_handle,
    point_handle,
    power_of_ten,
    series_title,
    style,
)
from engramctl.present.verdicts import short_memory
from engramctl.results.trial_table import Series, finished, of_series, series_order

if TYPE_CHECKING:
    from engram.fitting.results import MemoryFit

_LIGHT = 0.5
"""Opacity of an extrapolated curve."""
_SHADE = 0.12
"""Opacity of the grey behind it."""


def memory_figure(wanted: pd.DataFrame, fits: SweepFits) -> Figure:
    """Validation loss against slots on a logarithmic axis, one panel per size and budget and one series per variant.

    Every seed is a point; the fitted curve has its 95 % band and continues, dashed and on grey, as far beyond the measurements as can be
    told. The loss without memory is a horizontal line. Trials without a loss are marked at the edges, those without memory at the left end.
    """
    keys = series_order(wanted)
    panels = list(dict.fromkeys(key[:2] for key in keys))
    variants = list(dict.fromkeys(key.variant for key in keys))
    # Dashes mean extrapolation here; without colour the markers tell the series apart.
    looks = {variant: style(i)._replace(line="-") for i, variant in enumerate(variants)}
    with drawing():
        figure, all_axes = grid(len(panels), height=2.0, extra=0.9, single=3.0 + 0.2 * len(variants))
        for axes, panel in zip(all_axes, panels, strict=True):
            _draw_panel(axes, wanted, [key for key in keys if key[:2] == panel], fits, looks, several=len(panels) > 1)
        last = keys[-len(variants) :] if len(panels) == 1 else []
        entries: list[Any] = [line_handle(_label(variant, fits, last), looks[variant]) for variant in variants]
        legend(figure, [*entries], 1, "left")
        legend(figure, _shared_entries(wanted, fits), 1, "right")
        label_axes(figure, all_axes, "memory slots (rows of all tables together, log scale)", NATS)
    return figure


def _draw_panel(axes: Axes, wanted: pd.DataFrame, keys: list[Series], fits: SweepFits, looks: dict[str, Style], several: bool) -> None:
    here = wanted[(wanted["size"] == keys[0].size) & (wanted["budget_flops"] == keys[0].budget_flops)]
    slots = here.loc[here["n_slots"] > 0, "n_slots"]
    left = float(slots.min()) / 3 if len(slots) else 1.0
    axes.set_xscale("log")
    edges = Edges(axes, height=0.06)
    _draw_beyond(axes, [fits.memory[key] for key in keys if key in fits.memory])
    for key in keys:
        mine = of_series(wanted, key)
        done = finished(mine)
        done = done[done["n_slots"] > 0]
        draw_trials(axes, done["n_slots"], done["val_loss"], looks[key.variant])
        if key in fits.memory:
            _draw_law(axes, fits.memory[key], looks[key.variant])
        else:
            means = done.groupby("n_slots")["val_loss"].mean()
            axes.plot(means.index, means, color=looks[key.variant].color, ls=looks[key.variant].line, lw=1.2, marker="_", ms=5, zorder=2)
        edges.mark(mine.assign(at=mine["n_slots"].where(mine["n_slots"] > 0, left)), "at", looks[key.variant].color)
    none = fits.no_memory.get(keys[0][:2])
    if none:
        _draw_none(axes, none)
        done = finished(here[here["n_slots"] == 0])
        draw_trials(axes, [left] * len(done), done["val_loss"], Style(GREY, "o", "-"))
    _slots_axis(axes, left, slots)
    edges.fit(*axes.dataLim.intervaly)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_title(f"{series_title(keys[0]._replace(variant=''))}, {finished_seeds(here)}", loc="left")


def _slots_axis(axes: Axes, left: float, slots: pd.Series) -> None:
    """Ticks at powers of ten from the fewest slots on, and one for 0, which a logarithmic axis doesn't have, at the left end."""
    axes.set_xlim(left / 1.6, None)
    if slots.empty:
        return
    low, high = math.ceil(math.log10(slots.min()) - 0.2), math.floor(math.log10(axes.get_xlim()[1]))
    decades = range(low, high + 1)
    axes.set_xticks([left, *(10.0**k for k in decades)])
    axes.set_xticklabels(["0", *(power_of_ten(k) for k in decades)])
    minor = [m * 10.0**k for k in range(low - 1, high + 1) for m in range(2, 10)]
    axes.set_xticks([x for x in minor if slots.min() <= x <= axes.get_xlim()[1]], minor=True)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_law(axes: Axes, fit: "MemoryFit", look: Style) -> None:
    band, (low, high) = fit.band, fit.measured
    inside = (band.x >= low) & (band.x <= high)
    axes.fill_between(band.x[inside], band.low[inside], band.high[inside], color=look.color, alpha=BAND_ALPHA, lw=0, zorder=1)
    axes.plot(band.x[inside], band.loss[inside], color=look.color, ls="-", lw=1.2, zorder=2)
    # From the last point inside on, so that the two parts join
    beyond = band.x > high
    joined = beyond | np.roll(beyond, -1) if beyond.any() else beyond
    axes.fill_between(band.x[joined], band.low[joined], band.high[joined], color=look.color, alpha=BAND_ALPHA / 2.5, lw=0, zorder=1)
    axes.plot(band.x[joined], band.loss[joined], color=look.color, alpha=_LIGHT, ls=(0, (3, 2)), lw=1.0, zorder=2)


def _draw_beyond(axes: Axes, laws: "list[MemoryFit]") -> None:
    """Grey where no curve of this panel has measurements, and a factor that says how far it goes."""
    if not laws:
        return
    measured, end = max(fit.measured[1] for fit in laws), max(float(fit.band.x[-1]) for fit in laws)
    axes.axvspan(measured, end, color=GREY, alpha=_SHADE, lw=0, zorder=0)
    axes.annotate(
        f"extrapolated\nto {end / measured:g}\N{MULTIPLICATION SIGN}", ((measured * end) ** 0.5, 0.88), xycoords=("data", "axes fraction"),
        ha="center", va="top", rotation=90, fontsize=6, color=GREY,
    )  # fmt: skip


def _draw_none(axes: Axes, none: NoMemory) -> None:
    axes.axhline(none.loss, color=GREY, lw=1.0, ls=(0, (5, 1.5)), zorder=1)
    if none.difference:
        interval = none.difference.paired.difference
        axes.axhspan(
            none.loss + interval.low - interval.estimate,
            none.loss + interval.high - interval.estimate,
            color=GREY,
            alpha=0.15,
            lw=0,
            zorder=0,
        )


def _label(variant: str, fits: SweepFits, keys: list[Series]) -> str:
    """The variant, and its fitted law if there is only one panel."""
    name = variant or "memory"
    found = [fits.memory[key] for key in keys if key.variant == variant and key in fits.memory]
    return f"{name}\n{short_memory(found[0]).replace('-', MINUS)}" if found else name


def _shared_entries(wanted: pd.DataFrame, fits: SweepFits) -> list[Any]:
    look = Style(GREY, "o", "-")
    entries: list[Any] = [point_handle("one trial (seed)", look)]
    if fits.memory:
        entries.append(band_handle("fit, 95 % band", look))
        entries.append(Line2D([], [], color=GREY, alpha=_LIGHT, lw=1.0, ls=(0, (3, 2)), label="extrapolated"))
    if fits.no_memory:
        entries.append(band_handle("no memory", Style(GREY, "", (0, (5, 1.5)))))
    return [*entries, *edge_handles(wanted["status"])]
