"""Mean gates by group of tokens, and the phrases that open them most."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engramctl.present.figures.groups import LINE, group_rows, label_rows
from engramctl.present.figures.panels import legend, new_figure
from engramctl.present.figures.readable import MONO, readable
from engramctl.present.figures.style import INTERVAL, PAGE, drawing, style
from engramctl.present.tables.gates import gate_top
from engramctl.present.tokens import visible

_LONGEST = 22
"""Most characters that are shown of a phrase."""


def gates_figure(groups: pd.DataFrame, phrases: pd.DataFrame) -> Figure:
    """Left: mean gate by group, with 95 % intervals. Right: the phrases with the highest mean gate.

    On the left, markers tell branches apart, colours tell layers apart, or branches if there is only one layer.

    Args:
        groups: a table `gates`.
        phrases: the table `gate_phrases` that belongs to it.
    """
    places = group_rows(groups)
    height = 0.85 + LINE * (max(places.values()) + 1)
    with drawing():
        figure = new_figure(PAGE, height)
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        sites = sorted(set(zip(groups["layer"], groups["branch"], strict=True)))
        layers = sorted(groups["layer"].unique())
        entries: list[Any] = []
        for i, (layer, branch) in enumerate(sites):
            color, marker = style(layers.index(layer) if len(layers) > 1 else i).color, style(branch).marker
            rows = groups[(groups["layer"] == layer) & (groups["branch"] == branch)]
            shift = (i - (len(sites) - 1) / 2) * min(0.18, 0.7 / len(sites))
            y = [places[key] + shift for key in zip(rows["grouping"], rows["label"], strict=True)]
            gate, low, high = (rows[name].astype(float) for name in ("gate", "gate_low", "gate_high"))
            bars = [(gate - low).clip(lower=0).fillna(0), (high - gate).clip(lower=0).fillna(0)]
            left.errorbar(gate, y, xerr=bars, color=color, marker=marker, ms=2.6, ls="", zorder=3, **INTERVAL)
            entries.append(Line2D([], [], color=color, marker=marker, ms=3, ls="", label=f"layer {layer}, branch {branch}"))
        label_rows(left, groups, places)
        left.set_xlabel("mean gate")
        left.margins(x=0.08)
        _phrases(right, phrases, layers, round((height - 0.85) / LINE), gate_top(groups))
        figure.suptitle(groups["model"].iloc[0], x=0.01, ha="left", fontsize=7)
        legend(figure, entries, 4, "right")
    return figure


def _phrases(axes: Axes, phrases: pd.DataFrame, layers: list[int], n_lines: int, top: float) -> None:
    each = max(3, n_lines // len(layers) - 1)
    names, y = [], 0
    places: list[int] = []
    for i, layer in enumerate(layers):
        rows = phrases[(phrases["layer"] == layer) & (phrases["rank"] <= each)]
        if len(layers) > 1:
            axes.text(0, y, f"layer {layer}", fontsize=6.5, fontweight="bold", va="center")
            y += 1
        at = np.arange(y, y + len(rows))
        axes.barh(at, rows["gate"], height=0.7, color=style(i).color, alpha=0.75)
        names += [readable(_short(visible(text))) for text in rows["text"]]
        places += at.tolist()
        y += len(rows)
    axes.set_yticks(places, names, fontfamily=MONO, fontsize=6)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(y - 0.4, -0.6)
    axes.set_xlim(0, top)
    axes.set_xlabel("mean gate of the phrases that open it most")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
