"""Fits in a few words, for panels and legends."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engram.fitting.results import AllocationFit, Drift, MemoryFit


def short_verdict(fit: "AllocationFit", rho: str = "rho") -> str:
    """What a curve has shown about its minimum; `rho` is how that word is written."""
    star, verdict = fit.rho_star, fit.verdict
    if verdict.kind == "too-few-points":
        return "too few points for a curve"
    if verdict.kind == "interior":
        return f"interior minimum {star.estimate:.2f} ({star.low:.2f}\N{EN DASH}{star.high:.2f})"
    lowest, top = (0.0, 1.0) if fit.band is None else (float(fit.band.x[0]), float(fit.band.x[-1]))
    if verdict.kind == "not-distinguishable":
        return f"not distinguishable from {rho} = {top:g}"
    if lowest < star.estimate < top:
        return f"no rise shown towards {rho} = {lowest:g}"
    if star.estimate <= lowest:
        return f"lowest at {rho} = {lowest:g}, minimum up to {star.high:.2f}"
    return f"lowest at {rho} = {top:g}, minimum from {star.low:.2f}"


def short_drift(drift: "Drift") -> str:
    """Slope of the best rho per factor of ten in budget."""
    slope = drift.slope
    return f"{slope.estimate:+.2f} ({slope.low:+.2f}, {slope.high:+.2f}) per \N{MULTIPLICATION SIGN}10 budget"


def short_memory(fit: "MemoryFit") -> str:
    """Change in loss per factor of ten in slots, over the measured range."""
    change = fit.per_tenfold
    return f"{change.estimate:+.3f} ({change.low:+.3f}, {change.high:+.3f}) per \N{MULTIPLICATION SIGN}10 slots"
