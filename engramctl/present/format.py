"""How numbers, durations and trials are written for people, in one place.

It imports none of our modules, so that every room can use it, for error messages too.
"""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.config.trial import TrialConfig

NO_VALUE = "-"
"""Stands in tables in place of a missing number."""


def is_missing(value: float | None) -> bool:
    """Whether a number is missing: None or NaN."""
    return value is None or value != value


def number(value: float | None, form: str = ".3f", missing: str = NO_VALUE) -> str:
    """A number, or `missing` (a dash) if there is none."""
    return missing if value is None or value != value else format(value, form)


def bounds(low: float | None, high: float | None, form: str = ".3f") -> str:
    """0.123 to 0.456; a dash if `low` is missing."""
    return NO_VALUE if is_missing(low) else f"{number(low, form)} to {number(high, form)}"


def percent(share: float | None, form: str = ".1f") -> str:
    """A fraction as a percentage without the sign: 0.123 -> 12.3; a dash if there is none."""
    return number(None if share is None else 100 * share, form)


def percent_bounds(low: float | None, high: float | None, form: str = ".1f") -> str:
    """Two fractions as percentages: 12.3 to 45.6; a dash if `low` is missing."""
    return NO_VALUE if is_missing(low) else f"{percent(low, form)} to {percent(high, form)}"


def human(value: float, digits: int = 3) -> str:
    """1234567 -> 1.23M: `digits` significant digits and a suffix for the power of a thousand."""
    if value != 0 and abs(value) >= 1e15:
        return f"{value:.{digits}g}"
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """75.2 -> 1m15s, 200000 -> 2d07h."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def format_flops(value: float) -> str:
    """8.2e+12 -> 8.2e12."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def format_rho(value: float) -> str:
    """Two decimals, or four significant digits where two decimals are too few: 0.6 -> 0.60, 0.775 -> 0.775."""
    return f"{value:.2f}" if math.isclose(value, round(value, 2), abs_tol=1e-9) else f"{value:.4g}"


def counted(n: int, noun: str) -> str:
    """1 trial, 2 trials."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def last_line(text: object) -> str:
    """The last line of a text, which in a traceback says what went wrong; empty for an empty text."""
    return (str(text).strip().splitlines() or [""])[-1]


def series_name(size: str, budget_flops: float, variant: str = "") -> str:
    """1m, 6e12 FLOPs, wider."""
    return ", ".join([size, f"{format_flops(budget_flops)} FLOPs", *([variant] if variant else [])])


def trial_name(trial: "TrialConfig") -> str:
    """A trial's name in a sentence or a table: 1m, rho = 0.40, seed 0."""
    return ", ".join([trial.size, *([trial.variant] if trial.variant else []), f"rho = {format_rho(trial.rho)}", f"seed {trial.seed}"])


def short_trial_name(trial: "TrialConfig") -> str:
    """A trial's name in a line of progress: 1m ρ=0.4 seed=0."""
    variant = f" {trial.variant}" if trial.variant else ""
    return f"{trial.size}{variant} ρ={trial.rho:.3g} seed={trial.seed}"


def plain(value: Any) -> Any:
    """A value for strict JSON or Arrow: NumPy scalars become Python's, arrays and tuples lists; NaN, infinity and nulls None."""
    if hasattr(value, "tolist"):  # NumPy, which is not imported here so that --help stays fast
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
