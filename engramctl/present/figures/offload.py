"""What tables outside the model cost: time added to inference and to training, by placement and by length of the table."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engram.benchmarks.results import NO_TABLE, PROCESS, Measured, ServingSpeed, TrainingSpeed
from engramctl.present.figures.panels import legend, new_figure
from engramctl.present.figures.style import GREY, INTERVAL, PAGE, drawing, line_handle, style

Cost = tuple[str, float, Measured, int | None]
"""Name of a case; its time over that of the case it is compared with, in all rounds together and as the rounds' median; table rows."""


def offload_figure(inference: ServingSpeed | None, training: TrainingSpeed | None) -> Figure:
    """Time added over having no table (inference) or a table in the process (training), in per cent: the rounds' median with interval.

    One panel each for inference and training; where several table lengths were measured, one more against the number of rows.
    """
    panels = [(name, costs) for name, costs in (("inference", _inference(inference)), ("training", _training(training))) if costs]
    by_length = [(name, lengths) for name, costs in panels if len(lengths := _lengths(costs)) > 1]
    with drawing():
        n = len(panels) + bool(by_length)
        figure = new_figure(PAGE if n > 1 else PAGE / 2, 2.3)
        axes = list(figure.subplots(1, n, squeeze=False).flat)
        for one, (name, costs) in zip(axes, panels, strict=False):
            _by_case(one, [cost for cost in costs if " rows" not in cost[0]], name)
        if by_length:
            for number, (_, costs) in enumerate(by_length):
                _by_length(axes[-1], costs, number)
            axes[-1].axhline(0, color=GREY, lw=0.7, zorder=1)
            axes[-1].set(xscale="log", xlabel="rows of the tables")
            axes[-1].set_title("tables on disk, by length", loc="left")
            _around_zero(axes[-1], [cost for _, costs in by_length for cost in costs])
            legend(figure, [line_handle(name, style(i)) for i, (name, _) in enumerate(by_length)], len(by_length), "right")
        axes[0].set_ylabel("time added (%)")
    return figure


def _inference(speed: ServingSpeed | None) -> list[Cost]:
    """Ratios of time, which are those of throughput inverted."""
    found: list[Cost] = []
    for case in speed.cases if speed is not None else ():
        if case.ratio is not None and case.total_ratio is not None and case.name != NO_TABLE:
            inverted = Measured(1 / case.ratio.median, 1 / case.ratio.high, 1 / case.ratio.low)
            found.append((case.name, 1 / case.total_ratio, inverted, case.rows))
    return found


def _training(speed: TrainingSpeed | None) -> list[Cost]:
    cases = speed.cases if speed is not None else ()
    return [
        (c.name, c.total_ratio, c.ratio, c.rows) for c in cases if c.ratio is not None and c.total_ratio is not None and c.name != PROCESS
    ]


def _lengths(costs: Sequence[Cost]) -> list[Cost]:
    """The cases that differ only in the length of the table: on disk, fetched ahead, with the same cache."""
    return sorted((cost for cost in costs if " rows" in cost[0]), key=lambda cost: cost[3] or 0)


def _added(ratio: float) -> float:
    return 100 * (ratio - 1)


def _by_case(axes: Axes, costs: Sequence[Cost], title: str) -> None:
    axes.axhline(0, color=GREY, lw=0.7, zorder=1)
    for x, (_, _, ratio, _) in enumerate(costs):
        _point(axes, x, ratio, 0)
    axes.set_xticks(range(len(costs)), [cost[0].replace("disk, ", "disk,\n", 1).replace(", ", ",\n") for cost in costs], fontsize=5.5)
    axes.set_title(title, loc="left")
    axes.margins(x=0.12)
    _around_zero(axes, costs)


def _by_length(axes: Axes, costs: Sequence[Cost], number: int) -> None:
    look = style(number)
    axes.plot([cost[3] or 0 for cost in costs], [_added(cost[2].median) for cost in costs], color=look.color, ls=look.line, lw=0.9)
    for cost in costs:
        _point(axes, cost[3] or 0, cost[2], number)


def _point(axes: Axes, x: float, ratio: Measured, number: int) -> None:
    look = style(number)
    middle = _added(ratio.median)
    bars = [[middle - _added(ratio.low)], [_added(ratio.high) - middle]]
    axes.errorbar([x], [middle], yerr=bars, color=look.color, marker=look.marker, ms=3, ls="", zorder=3, **INTERVAL)


def _around_zero(axes: Axes, costs: Sequence[Cost]) -> None:
    """Set limits that show all medians with their intervals, and zero."""
    ends: list[Any] = [0.0, *(_added(end) for cost in costs for end in (cost[2].median, cost[2].low, cost[2].high))]
    low, high = min(ends), max(ends)
    axes.set_ylim(low - 0.08 * (high - low) - 0.2, high + 0.08 * (high - low) + 0.2)
