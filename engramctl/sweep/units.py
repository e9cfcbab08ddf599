"""Sizes, durations and FLOPs as a person types them."""

import math
import re

from engram.errors import UserError

_SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}

_PER_PARAMETER = "tpp"
_MOST_PER_PARAMETER = 1e9

_MOST_BYTES = 1e18
_MOST_S = 10 * 366 * 86400.0


def parse_bytes(text: str) -> int:
    """`64MB`, `1.5GB`, `500000` -> bytes; UserError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    size = float(match[1]) * _SCALES[match[2] or ""] if match else 0.0
    if size > _MOST_BYTES:
        raise UserError(f"{text[:60]!r} is more than any machine holds; at most {_MOST_BYTES:.0e} bytes are allowed")
    if size < 1:
        raise UserError(f"{text!r} is not a size; write bytes or a unit, such as 500000, 64MB or 2GB")
    return int(size)


def parse_duration(text: str) -> float:
    """`90s`, `20m`, `1h30m`, `2d` -> seconds; UserError otherwise."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower())
    seconds = sum(float(number or 0) * scale for number, scale in zip(match.groups(), _SECONDS.values(), strict=True)) if match else 0.0
    if seconds > _MOST_S:
        raise UserError(f"{text[:60]!r} is longer than ten years")
    if seconds <= 0:
        raise UserError(f"{text!r} is not a duration; write 90s, 20m, 2h or 1h30m")
    return seconds


def parse_per_parameter(text: str) -> float | None:
    """`20tpp` -> 20 tokens for each active parameter; None where the unit is another, UserError where the number is none."""
    number, unit, rest = text.strip().lower().partition(_PER_PARAMETER)
    if not unit or rest:
        return None
    try:
        tokens = float(number)
    except ValueError:
        tokens = math.nan
    if not 0 < tokens <= _MOST_PER_PARAMETER:
        raise UserError(f"budget {text[:60]!r} is not a number of tokens for each active parameter, such as 20tpp")
    return tokens


def parse_flops(text: str) -> float:
    """`1e14` -> FLOPs; UserError otherwise."""
    try:
        flops = float(text)
    except ValueError:
        flops = math.nan
    if not (0 < flops < math.inf):
        raise UserError(f"budget {text!r} is neither FLOPs for each trial, such as 1e13, nor a wall time, such as 20m, nor 20tpp")
    return flops
