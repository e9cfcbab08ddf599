"""Effective depth of two models: how early each gets close to its prediction, and which layers are similar."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogFormatter, MaxNLocator

from engramctl.present.figures.panels import legend, new_figure
from engramctl.present.figures.style import BAND_ALPHA, PAGE, POINT, band_handle, drawing, style

_LINEAR_LAYERS = 4
"""With fewer layers than this the divergence is drawn on a linear axis: a logarithmic one has no place for the last layer's zero."""


def depth_figure(frame: pd.DataFrame) -> Figure:
    """Left: KL divergence of each layer's prediction from the model's own, with 95 % bands. Right: CKA of all pairs of layers.

    The dashed line on the right shows where each layer of B stands in A.

    Args:
        frame: a table `depth`.
    """
    first = frame.iloc[0]
    with drawing():
        figure = new_figure(PAGE, 2.6)
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        _divergence(left, frame)
        image = _similarity(right, frame)
        bar = figure.colorbar(image, ax=right, shrink=0.9, pad=0.02)
        bar.set_label("CKA")
        bar.outline.set_linewidth(0.5)
        names = [f"A: {first['model_a']}", f"B: {first['model_b']}"]
        legend(figure, [band_handle(name, style(i)) for i, name in enumerate(names)], 2)
    return figure


class _Plain(LogFormatter):
    """0.4 where Matplotlib would write 4e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _divergence(axes: Axes, frame: pd.DataFrame) -> None:
    rows = {model: frame[frame["quantity"] == f"divergence_{model}"] for model in "ab"}
    log = max(map(len, rows.values())) >= _LINEAR_LAYERS
    for i, (model, values) in enumerate(rows.items()):
        if log:  # the last layer's divergence is 0 by definition
            values = values[values["value"] > 0]
        look, layer = style(i), values[f"layer_{model}"].astype(float)
        axes.plot(layer, values["value"], color=look.color, ls=look.line, marker=look.marker, ms=POINT, mfc="white", mew=0.7, lw=1.2)
        low, high = values["value_low"].astype(float), values["value_high"].astype(float)
        axes.fill_between(layer, low, high, color=look.color, alpha=BAND_ALPHA, lw=0)
    if log:
        axes.set_yscale("log")
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(_Plain(minor_thresholds=(2, 0.4)))
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("layer")
    axes.set_ylabel("KL divergence from the last layer (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("nearness to the prediction", loc="left")


def _similarity(axes: Axes, frame: pd.DataFrame) -> AxesImage:
    rows = frame[frame["quantity"] == "similarity"]
    matrix = rows.pivot_table(index="layer_a", columns="layer_b", values="value", dropna=False).to_numpy(dtype=float)
    image = axes.imshow(matrix, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1)
    if matrix.size <= 9:
        for i, j in np.ndindex(*matrix.shape):
            shade = "white" if matrix[i, j] < 0.5 else "black"
            axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="bottom", fontsize=6, color=shade)
    alignment = frame[frame["quantity"] == "alignment"]
    layer, value = alignment["layer_b"].astype(float), alignment["value"].astype(float)
    ends = (0, min(matrix.shape) - 1)
    axes.plot(ends, ends, color="white", ls=":", lw=0.8, zorder=2)
    axes.plot(layer, value, color="white", ls="-", lw=2.2, zorder=3)
    axes.plot(layer, value, color="black", ls="--", lw=1.2, marker="o" if len(layer) <= 8 else "", ms=2.5, zorder=4)
    axes.set_xlabel("layer of B")
    axes.set_ylabel("layer of A")
    axes.set_title("similarity of layers; dashed: B's layers in A; dotted: equal", loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
