"""Text that the figures' font can show."""

from functools import lru_cache

from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

MONO = "DejaVu Sans Mono"


@lru_cache(maxsize=1)
def _known() -> frozenset[int]:
    return frozenset(FT2Font(findfont(MONO)).get_charmap())


def readable(text: str) -> str:
    """The text with characters that the font lacks replaced by a sign, and with dollars escaped so that they start no formula."""
    return "".join(c if ord(c) in _known() else "\N{REPLACEMENT CHARACTER}" for c in text).replace("$", r"\$")
