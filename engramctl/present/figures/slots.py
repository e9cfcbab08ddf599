"""How the rows of a memory are used: Zipf curves, norms, and what each head brings on its own."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engramctl.present.figures.panels import legend, new_figure
from engramctl.present.figures.style import GREY, INTERVAL, PAGE, drawing, line_handle, style


def slots_figure(heads: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Left: reads of a row against its rank. Middle: norm of the rows against their reads. Right: what each head brings on its own.

    On the left and in the middle each head is a line. On the right its gain is a share of the gain of all heads, with 95 % intervals.

    Args:
        heads: a table `memory`.
        rows: the table `memory_rows` that belongs to it.
    """
    orders = sorted(heads["order"].unique())
    with drawing():
        figure = new_figure(PAGE, 2.4)
        zipf, norms, alone = figure.subplots(1, 3)
        _curves(zipf, rows[rows["curve"] == "zipf"], orders, "rank", "reads")
        zipf.set(xscale="log", yscale="log", xlabel="rank of the row", ylabel="reads")
        _curves(norms, rows[rows["curve"] == "norm"], orders, "reads", "norm")
        norms.set(xlabel="reads of the row", ylabel="mean norm of the rows")
        norms.set_xscale("symlog", linthresh=1)
        norms.set_ylim(bottom=0)
        _alone(alone, heads, orders)
        figure.suptitle(heads["model"].iloc[0], x=0.01, ha="left", fontsize=7)
        legend(figure, [line_handle(f"{order}-grams", style(i)) for i, order in enumerate(orders)], len(orders), "right")
    return figure


def _curves(axes: Axes, rows: pd.DataFrame, orders: list[int], x: str, y: str) -> None:
    for _, curve in rows.groupby(["table_set", "order", "head"]):
        look = style(orders.index(curve["order"].iloc[0]))
        marks: Any = {"marker": look.marker, "ms": 2, "mfc": "white", "mew": 0.5} if y == "norm" else {}
        axes.plot(curve[x].astype(float), curve[y].astype(float), color=look.color, ls=look.line, lw=0.9, alpha=0.8, **marks)


def _alone(axes: Axes, heads: pd.DataFrame, orders: list[int]) -> None:
    several = heads["table_set"].nunique() > 1
    axes.axhline(0, color=GREY, lw=0.7, zorder=1)
    names = []
    for x, row in enumerate(heads.to_dict("records")):
        look = style(orders.index(row["order"]))
        estimate, low, high = (100 * float(row[name]) for name in ("share_alone", "share_alone_low", "share_alone_high"))
        bars = np.nan_to_num([[max(estimate - low, 0)], [max(high - estimate, 0)]])
        axes.errorbar([x], [estimate], yerr=bars, color=look.color, marker=look.marker, ms=3, ls="", zorder=3, **INTERVAL)
        names.append(f"{row['table_set']}:{row['order']}.{row['head']}" if several else f"{row['order']}.{row['head']}")
    step = -(-len(names) // 24)
    upright: Any = {"rotation": 90, "fontsize": 5.5} if len(names) > 8 else {}
    axes.set_xticks(range(0, len(names), step), names[::step], **upright)
    axes.set_xlabel("tables:order.head" if several else "order.head")
    axes.set_ylabel("gain of one head alone (% of all)")
    axes.margins(x=0.08)
