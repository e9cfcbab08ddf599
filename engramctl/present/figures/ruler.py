"""Scores in RULER's categories against length."""

from collections.abc import Mapping
from typing import Any, cast

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engramctl.present.figures.panels import legend, new_figure
from engramctl.present.figures.style import COLUMN, GREY, PAGE, RHO, drawing, flops_label, style
from engramctl.present.format import format_rho

_COLUMNS = 4
_HEIGHT = 1.35
"""Height of a panel, inches."""


def ruler_figure(groups: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel per category, one block of panels per comparison (`findings.ruler.matched`).

    Each rho and budget is a line, the mean over seeds: solid for models that were extended to longer sequences, dashed for the others.
    The dotted line is the score of an echo of the prompt's end.
    """
    from engram.evaluation.ruler import CATEGORIES

    keys = sorted({key for rows in groups.values() for key in zip(rows["rho"], rows["budget_flops"], strict=True)})
    looks = {key: style(i) for i, key in enumerate(keys)}
    present = {name: [c for c in CATEGORIES if c in set(rows["category"])] for name, rows in groups.items()}
    columns = min(_COLUMNS, max(map(len, present.values())))
    lines = {name: -(-len(categories) // columns) for name, categories in present.items()}
    with drawing():
        width = COLUMN if columns < 3 else PAGE
        figure = new_figure(width, 0.75 + sum(lines.values()) * _HEIGHT + 0.2 * len(groups))
        blocks = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=list(lines.values()))[:, 0]
        for block, (name, rows) in zip(blocks, groups.items(), strict=True):
            if len(groups) > 1:
                block.suptitle(name, fontsize="medium", x=0.01, ha="left")
            panels = list(block.subplots(lines[name], columns, squeeze=False).flat)
            for unused in panels[len(present[name]) :]:
                unused.remove()
            for i, (axes, category) in enumerate(zip(panels, present[name], strict=False)):
                _draw(axes, rows[rows["category"] == category], looks)
                axes.set_title(category, loc="left")
                axes.set_ylabel("score (%)" if i % columns == 0 else "")
                if i >= len(present[name]) - columns:
                    axes.set_xlabel("length (tokens)")
        entries: list[Any] = [
            Line2D([], [], color=look.color, marker=look.marker, ms=3, mfc="white", mew=0.7, lw=1.2, label=_name(key, groups))
            for key, look in looks.items()
        ]
        extended = {bool(flag) for rows in groups.values() for flag in rows["extended"]}
        if True in extended:
            entries.append(Line2D([], [], color=GREY, lw=1.2, label="extended"))
        if False in extended:
            entries.append(Line2D([], [], color=GREY, lw=1.0, ls="--", label="as trained"))
        entries.append(Line2D([], [], color=GREY, lw=0.9, ls=":", label="echo of the prompt's end"))
        legend(figure, entries, 2 if columns < 3 else 3)
    return figure


def _draw(axes: Any, rows: pd.DataFrame, looks: Mapping[tuple[float, float], Any]) -> None:
    for key, mine in rows.groupby(["rho", "budget_flops", "extended"]):
        rho, budget, extended = cast("tuple[float, float, bool]", key)
        look, means = looks[rho, budget], mine.groupby("length")["score"].mean()
        pen: Any = {"color": look.color, "marker": look.marker, "ms": 3, "mfc": "white", "mew": 0.7, "lw": 1.2, "zorder": 2}
        axes.plot(means.index, means, ls="-" if extended else "--", **pen)
    floor = rows.groupby("length")["floor"].mean()
    axes.plot(floor.index, floor, color=GREY, lw=0.9, ls=":", marker="." if len(floor) == 1 else "", ms=3, zorder=1)
    lengths = sorted(rows["length"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    axes.set_xlim(lengths[0] / 1.15, lengths[-1] * 1.15)
    axes.set_ylim(-4, max(10.0, 1.15 * max(rows["score"].max(), rows["floor"].max())))


def _name(key: tuple[float, float], groups: Mapping[str, pd.DataFrame]) -> str:
    rho, budget = key
    rows = pd.concat(groups.values())
    loss = rows.loc[(rows["rho"] == rho) & (rows["budget_flops"] == budget)].drop_duplicates("source_id")["val_loss"].mean()
    return f"{RHO} = {format_rho(rho)}, {flops_label(budget)} FLOPs, loss {loss:.3f}"
