"""Tokens made visible: white space and control characters as signs, gates as colours."""

import json

CONTROL_SIGNS = {code: 0x2400 + code for code in range(0x20)} | dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)
"""For `str.translate`: a text may contain anything, but a terminal should show control characters rather than obey them."""
_SIGNS: dict[int, int | str] = {**CONTROL_SIGNS, 0x0A: "↵\n", 0x09: "→"}
_LOW, _HIGH = (0xFF, 0xFF, 0xFF), (0xE6, 0x8A, 0x5C)
"""A shut gate and an open one; black text reads well on both."""


def shown(token: str) -> str:
    """A token as part of a text; a line break is shown as a sign followed by a break."""
    return token.translate(_SIGNS)


def visible(text: str) -> str:
    """A text on one line, in quotation marks and with escapes."""
    return json.dumps(text, ensure_ascii=False).translate(_SIGNS)


def gate_colour(openness: float) -> str:
    """From white, for a shut gate (0), to orange, for an open one (1)."""
    share = min(max(openness, 0.0), 1.0)
    return "#" + "".join(f"{round(low + share * (high - low)):02x}" for low, high in zip(_LOW, _HIGH, strict=True))
