"""A text with its gates, as in the paper's Figure 7: the more a token's gate is open, the darker its background."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from engramctl.present.figures.panels import new_figure
from engramctl.present.figures.readable import MONO, readable
from engramctl.present.figures.style import GREY, PAGE, drawing
from engramctl.present.tables.gates import SITE, gate_top
from engramctl.present.tokens import gate_colour, shown

MOST_TOKENS = 400
_FONT = 6.5
_ADVANCE = 0.602 * _FONT / 72
"""Width of a character, inches."""
_LABEL = 0.62
"""Room for the names of layers and branches, inches."""
_TEXT, _CELL, _GAP = 0.15, 0.085, 0.09
"""Heights of a line of text, a row of cells without text, and the space below them, inches."""
_COLOURS = LinearSegmentedColormap.from_list("gate", [gate_colour(0), gate_colour(1)])


@dataclass(frozen=True)
class _Place:
    """A token, or the part of one that falls on a line."""

    token: int
    line: int
    start: int
    """Characters from the left."""
    text: str


def gate_text_figure(frame: pd.DataFrame) -> Figure:
    """The text with its gates as the background; with several layers or branches, as rows of cells under each line of text.

    Args:
        frame: a table `gate_text`; only the first 400 tokens of a long text are drawn.
    """
    tokens = frame.drop_duplicates("position").sort_values("position")["token"].tolist()
    sites = sorted(set(zip(frame["layer"], frame["branch"], strict=True)))
    indent = _LABEL if len(sites) > 1 else 0.1
    places = _laid_out(tokens[:MOST_TOKENS], int((PAGE - indent - 0.1) / _ADVANCE))
    under = 0.0 if len(sites) == 1 else _CELL * len(sites)
    line_height = _TEXT + under + _GAP
    n_lines = places[-1].line + 1
    height = n_lines * line_height + 0.55
    with drawing():
        figure = new_figure(PAGE, height)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, PAGE), ylim=(0, height))
        axes.axis("off")
        top = gate_top(frame)
        gates = {site: rows.sort_values("position")["gate"].tolist() for site, rows in frame.groupby(SITE)}
        for place in places:
            x, y = indent + place.start * _ADVANCE, height - 0.45 - place.line * line_height - _TEXT
            width = len(place.text) * _ADVANCE
            values = [gates[site][place.token] / top for site in sites]
            if len(sites) == 1:
                _cell(axes, x, y, width, _TEXT, values[0])
            else:
                for i, value in enumerate(values):
                    _cell(axes, x, y - _CELL * (i + 1), width, _CELL, value)
            axes.text(x, y + _TEXT * 0.28, readable(place.text), family=MONO, fontsize=_FONT, va="baseline")
        for line in range(n_lines if len(sites) > 1 else 0):
            y = height - 0.45 - line * line_height - _TEXT
            for i, (layer, branch) in enumerate(sites):
                axes.text(_LABEL - 0.05, y - _CELL * (i + 0.5), f"layer {layer}, br. {branch}", fontsize=4.6, ha="right", va="center")
        _key(figure, axes, height, top, f"{frame['model'].iloc[0]}{_cut(len(tokens))}", sites)
    return figure


def _cut(n_tokens: int) -> str:
    return f"; the first {MOST_TOKENS} of {n_tokens:,} tokens" if n_tokens > MOST_TOKENS else ""


def _cell(axes: Axes, x: float, y: float, width: float, height: float, openness: float) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor=gate_colour(openness), edgecolor="white", lw=0.4, zorder=1))


def _key(figure: Figure, axes: Axes, height: float, top: float, title: str, sites: list[tuple[int, int]]) -> None:
    one = f"; layer {sites[0][0]}, branch {sites[0][1]}" if len(sites) == 1 else ""
    axes.text(0.1, height - 0.2, title + one, fontsize=7, va="center")
    bar_axes = figure.add_axes((1 - 1.5 / PAGE, 1 - 0.24 / height, 1.2 / PAGE, 0.08 / height))
    bar = figure.colorbar(ScalarMappable(Normalize(0, top), _COLOURS), cax=bar_axes, orientation="horizontal", ticks=[0, top / 2, top])
    bar.outline.set(linewidth=0.4, edgecolor=GREY)
    bar.ax.tick_params(length=1.5, labelsize=5.5, pad=1)
    bar.ax.text(-0.06 * top, 0.5, "gate", fontsize=6, ha="right", va="center", transform=bar.ax.get_yaxis_transform())


def _laid_out(tokens: list[str], width: int) -> list[_Place]:
    """Tokens laid out in lines of at most `width` characters; lines break where the text does and between tokens, long tokens are cut."""
    places: list[_Place] = []
    line, column = 0, 0
    for number, token in enumerate(tokens):
        *before_breaks, rest = shown(token).split("\n")
        for text in before_breaks:
            line, column = _put(places, number, text, line, column, width)
            line, column = line + 1, 0
        if rest:
            line, column = _put(places, number, rest, line, column, width)
    return places


def _put(places: list[_Place], token: int, text: str, line: int, column: int, width: int) -> tuple[int, int]:
    """Add a text at a place, or on the next line if there is no room for it; returns the line and column after it."""
    text = text if len(text) <= width else text[: width - 1] + "…"
    if column + len(text) > width:
        line, column = line + 1, 0
    places.append(_Place(token, line, column, text))
    return line, column + len(text)
