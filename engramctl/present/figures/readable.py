"""Text that the figures' fonts can show, and that is drawn as it stands."""

import re
from functools import lru_cache, partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, Formatter, FuncFormatter, LogFormatterMathtext

from engramctl.present.figures.style import power_of_ten

SANS = "DejaVu Sans"
MONO = "DejaVu Sans Mono"


@lru_cache(maxsize=2)
def _known(font: str) -> frozenset[int]:
    return frozenset(FT2Font(findfont(FontProperties(family=font))).get_charmap())


def readable(text: str, font: str = MONO) -> str:
    """The text with characters that the font lacks, control characters among them, replaced by a sign."""
    return "".join(c if ord(c) in _known(font) or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def make_readable(figure: Figure) -> None:
    """Make every text of a figure readable, whoever wrote it: the one place that all figures pass before they are written."""
    for text in figure.findobj(Text):
        _replace(text)
    axes: Any
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            for formatter, set_to in (
                (axis.get_major_formatter(), axis.set_major_formatter),
                (axis.get_minor_formatter(), axis.set_minor_formatter),
            ):
                if isinstance(formatter, FixedFormatter):
                    formatter.seq = [readable(str(label), SANS) for label in formatter.seq]
                elif isinstance(formatter, FuncFormatter) and isinstance(formatter.func, partial):
                    # So set_xticks and set_yticks keep their labels: a dict by place.
                    for labels in formatter.func.args:
                        labels.update({place: readable(str(label), SANS) for place, label in labels.items()})
                elif isinstance(formatter, LogFormatterMathtext):
                    set_to(_PlainPowers(formatter))


def _replace(text: Text) -> None:
    old = text.get_text()
    new = readable(old, MONO if MONO in text.get_fontfamily() else SANS)
    if new != old:
        text.set_text(new)


class _PlainPowers(FuncFormatter):
    """Ticks of a logarithmic axis without formulas: 10³ and 2×10³, where `formatter` writes a label at all."""

    def __init__(self, formatter: Formatter) -> None:
        super().__init__(self._label)
        self._formatter = formatter

    def set_locs(self, locs: Any) -> None:
        self._formatter.set_locs(locs)

    def set_axis(self, axis: Any) -> None:
        super().set_axis(axis)
        self._formatter.set_axis(axis)

    def _label(self, x: float, position: int | None) -> str:
        formula = self._formatter(x, position)
        found = re.fullmatch(r"\$\\mathdefault\{(?:(\d+)\\times)?10\^\{(-?\d+)\}\}\$", formula)
        if not found:
            return re.sub(r"\$|\\mathdefault|[{}]", "", formula)
        return (f"{found[1]}×" if found[1] else "") + power_of_ten(int(found[2]))
