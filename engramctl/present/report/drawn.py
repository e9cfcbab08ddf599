"""A figure as the page holds it."""

import base64
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PageFigure:
    """A figure with its caption, ready for the page."""

    svg: str
    """SVG in Base64."""
    width: int
    """CSS pixels."""
    alt: str
    caption: str


_PIXELS = 125
"""CSS pixels per inch of a figure: more than 96, because its text is sized for paper."""


def drawn(kind: str, figure: "Figure", caption: str) -> PageFigure:
    """A figure as SVG."""
    from engramctl.present.figures.readable import make_readable
    from engramctl.present.figures.style import drawing

    buffer = BytesIO()
    with drawing():
        make_readable(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return PageFigure(base64.b64encode(buffer.getvalue()).decode(), round(_PIXELS * figure.get_figwidth()), f"Figure: {kind}", caption)
