"""Rows for groups of tokens, which two figures share: a heading per grouping, a row per group."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from engramctl.present.figures.style import GREY

LINE = 0.135
"""Height of a row, inches."""


def group_rows(frame: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Row of every group (grouping, label), counted from the top; an extra row before each grouping is for its name."""
    places: dict[tuple[str, str], float] = {}
    y = 0.0
    for grouping, label in dict.fromkeys(zip(frame["grouping"], frame["label"], strict=True)):
        if (grouping, label) != ("all", "all") and not any(grouping == other for other, _ in places):
            y += 1
        places[grouping, label] = y
        y += 1
    return places


def _headings(places: dict[tuple[str, str], float]) -> Iterator[tuple[str, float]]:
    first: dict[str, float] = {}
    for (grouping, _), y in places.items():
        first.setdefault(grouping, y)
    for grouping, y in first.items():
        if grouping != "all":
            yield grouping, y - 1


def label_rows(axes: Axes, frame: pd.DataFrame, places: dict[tuple[str, str], float], names: bool = True) -> None:
    """Label each row with its group and the group's number of tokens, and put the groupings' names into their own rows."""
    tokens = frame.groupby(["grouping", "label"])["n_tokens"].first()
    labels = [f"{'all tokens' if key == ('all', 'all') else key[1]}  ({_thousands(int(tokens[key]))})" for key in places]
    axes.set_yticks(list(places.values()), labels if names else [])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(places.values()) + 0.6, -0.6)
    axes.spines["left"].set_visible(False)
    if names:
        for name, y in _headings(places):
            axes.annotate(
                name, (0, y), xycoords=axes.get_yaxis_transform(), xytext=(-3, 0), textcoords="offset points",
                ha="right", va="center", fontsize=6.5, fontweight="bold",
            )  # fmt: skip
    for y in places.values():
        axes.axhline(y, color=GREY, lw=0.3, alpha=0.35, zorder=0)


def _thousands(n: int) -> str:
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
