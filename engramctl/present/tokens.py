"""Tokens for the eye: white space and control characters as signs, gates as colours."""

import json

# A text may have any character; on a terminal, control characters are shown instead of obeyed.
_SIGNS = {code: 0x2400 + code for code in range(0x20)} | dict.fromkeys(range(0x7F, 0xA0), 0xFFFD) | {0x0A: "↵\n", 0x09: "→"}
_LOW, _HIGH = (0xFF, 0xFF, 0xFF), (0xE6, 0x8A, 0x5C)
"""A shut gate and an open one; black text reads well on both."""


def shown(token: str) -> str:
    """A token as it stands in a text; a line break is a sign and a break."""
    return token.translate(_SIGNS)


def visible(text: str) -> str:
    """A text in quotation marks on one line, with escapes."""
    return json.dumps(text, ensure_ascii=False).translate(_SIGNS)


def gate_colour(openness: float) -> str:
    """White to orange, from 0 to 1."""
    share = min(max(openness, 0.0), 1.0)
    return "#" + "".join(f"{round(low + share * (high - low)):02x}" for low, high in zip(_LOW, _HIGH, strict=True))
