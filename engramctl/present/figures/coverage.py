"""How often the intervals of fits over rho hold, by the shape of the true curve: the figure of docs/fitting.md.

`python -m engram.fitting.calibration --json rows.json` makes the rows,
`python -m engramctl.present.figures.coverage rows.json FOLDER` draws `coverage.png`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engramctl.present.figures.save import save
from engramctl.present.figures.style import GREY, PAGE, PAPER_GREY, RHO, drawing

_PANELS = {
    "rho_covered": f"{RHO}*, convex",
    "smooth_covered": f"{RHO}*, if smooth",
    "gain_covered": "gain",
    "worst_held": "cost of the range",
}
_PROMISED = 95
_ALLOWED = (90, 100)


def coverage_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each kind of interval: per cent of made-up sweeps in which it held, a line of points for each shape.

    `rows` are `engram.fitting.calibration.Row` as mappings, with the name of the shape; None where a shape has no such number.
    """
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    seeds = sorted({row["n_seeds"] for row in rows})
    colors = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, len(seeds)))
    with drawing():
        figure = Figure(figsize=(PAGE, 0.9 + 0.155 * len(shapes)), layout="constrained")
        all_axes = figure.subplots(1, len(_PANELS), sharey=True)
        for axes, (name, title) in zip(all_axes, _PANELS.items(), strict=True):
            axes.axvspan(*_ALLOWED, color=PAPER_GREY, lw=0, zorder=0)
            axes.axvline(_PROMISED, color=GREY, lw=0.6, ls=(0, (1, 1.5)), zorder=1)
            for row in rows:
                if row[name] is not None:
                    color = colors[seeds.index(row["n_seeds"])]
                    axes.plot([100 * row[name]], [shapes.index(row["shape"])], color=color, marker="o", ms=3, ls="", alpha=0.85, zorder=3)
            axes.set_title(title, loc="left")
            axes.set_xlim(-4, 104)
            axes.set_xticks([0, 50, 90])
            axes.grid(axis="y", lw=0.3, color=PAPER_GREY, zorder=0)
        all_axes[0].set_yticks(range(len(shapes)), shapes)
        all_axes[0].set_ylim(len(shapes) - 0.5, -0.5)
        figure.supxlabel("sweeps in which the 95 % interval held, %", fontsize=7)
        handles = [
            Line2D([], [], color=color, marker="o", ms=3, ls="", label=f"{n} seed{'s' if n > 1 else ''}")
            for n, color in zip(seeds, colors, strict=True)
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def main() -> None:
    """Draw the rows of a file."""
    source, folder = sys.argv[1:]
    rows = json.loads(Path(source).read_text(encoding="utf-8"))
    print(save(coverage_figure(rows), Path(folder), "coverage", ["png"])[0])


if __name__ == "__main__":
    main()
