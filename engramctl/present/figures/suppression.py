"""The memory switched off: loss by group of tokens, and what benchmarks retain."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engramctl.findings.suppressed_tasks import shown_tasks
from engramctl.present.figures.groups import LINE, group_rows, label_rows
from engramctl.present.figures.panels import legend, new_figure
from engramctl.present.figures.style import GREY, INTERVAL, PAGE, STYLES, drawing


def suppression_figure(frame: pd.DataFrame) -> Figure:
    """Left: validation loss with the memory on and off. Right: the share of the right token's probability that is retained.

    Bars are 95 % intervals. Groups whose tokens come from a single document have no interval and are left out.

    Args:
        frame: a table `suppress`.
    """
    if frame["loss_on_low"].notna().any():
        frame = frame[frame["loss_on_low"].notna()]
    places = group_rows(frame)
    with drawing():
        figure = new_figure(PAGE, 0.85 + LINE * (max(places.values()) + 1))
        left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
        y = [places[key] for key in zip(frame["grouping"], frame["label"], strict=True)]
        for column, look in (("loss_on", STYLES[0]), ("loss_off", STYLES[1])):
            bars = _bars(frame, column)
            left.errorbar(frame[column], y, xerr=bars, color=look.color, marker=look.marker, ms=3, ls="", zorder=3, **INTERVAL)
        left.hlines(y, frame["loss_on"], frame["loss_off"], color=GREY, lw=0.8, zorder=1)
        right.errorbar(
            100 * frame["retained"], y, xerr=_bars(frame, "retained", 100), color=STYLES[2].color, marker="^", ms=3, ls="", **INTERVAL
        )
        right.axvline(100, color=GREY, lw=0.7, zorder=1)
        label_rows(left, frame, places)
        label_rows(right, frame, places, names=False)
        left.set_xlabel("validation loss (nats per token)")
        right.set_xlabel("retained probability of the right token (%)")
        _head(figure, frame)
    return figure


def suppressed_tasks_figure(frame: pd.DataFrame) -> Figure:
    """Left: the share of each benchmark's score that is retained. Right: bits per byte of the right answers, with the memory on and off.

    The benchmark that retains most is on top. Bars are 95 % intervals over items; beside them are the scores on and off.

    Args:
        frame: a table `suppress_tasks`.
    """
    rows = shown_tasks(frame).sort_values("retained", ascending=False, na_position="last")
    with drawing():
        figure = new_figure(PAGE, 0.85 + 0.2 * max(len(rows), 2))
        left, right = figure.subplots(1, 2)
        y = list(range(len(rows)))
        left.barh(y, (100 * rows["retained"].astype(float)).fillna(0), height=0.62, color=STYLES[0].color, alpha=0.75, zorder=2)
        left.errorbar(
            100 * rows["retained"].astype(float), y, xerr=_bars(rows, "retained", 100), color="black", ls="", zorder=3, **INTERVAL
        )
        left.axvline(100, color=GREY, lw=0.7, zorder=1)
        for place, row in zip(y, rows.to_dict("records"), strict=True):
            scores = f"{row['score_on']:.3f} \N{RIGHTWARDS ARROW} {row['score_off']:.3f}"
            beside: Any = {"xycoords": left.get_yaxis_transform(), "xytext": (4, 0), "textcoords": "offset points"}
            left.annotate(scores, (1, place), va="center", fontsize=6, **beside)
        bpb = rows[["bpb_on", "bpb_off"]].astype(float)
        right.hlines(y, bpb["bpb_on"], bpb["bpb_off"], color=GREY, lw=0.8, zorder=1)
        for column, look in (("bpb_on", STYLES[0]), ("bpb_off", STYLES[1])):
            right.plot(bpb[column], y, color=look.color, marker=look.marker, ms=3.5, ls="", zorder=3)
        for axes, names in ((left, list(rows["task"])), (right, [])):
            axes.set_yticks(y if names else [], names)
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(axes is left)
        left.set_xlabel("retained score without the memory (%)")
        right.set_xlabel("bits per byte of the right answers")
        _head(figure, frame)
    return figure


def _head(figure: Figure, frame: pd.DataFrame) -> None:
    figure.suptitle(frame["model"].iloc[0], x=0.01, ha="left", fontsize=7)
    entries: list[Any] = [
        Line2D([], [], color=look.color, marker=look.marker, ms=3, lw=1.0, label=label)
        for label, look in (("memory on", STYLES[0]), ("memory off", STYLES[1]))
    ]
    legend(figure, entries, 2, "right")


def _bars(frame: pd.DataFrame, column: str, scale: float = 1.0) -> Any:
    """Lengths of the error bars to both sides; 0 where there is no interval."""
    middle, low, high = (frame[name].astype(float) for name in (column, f"{column}_low", f"{column}_high"))
    return [(scale * (middle - low)).clip(lower=0).fillna(0), (scale * (high - middle)).clip(lower=0).fillna(0)]
