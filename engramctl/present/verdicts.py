"""Fits in a few words, for panels and legends."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engram.fitting.results import AllocationFit, Drift, MemoryFit
    from engramctl.findings.fits import SweepFits
    from engramctl.results.trial_table import Series


def answers(fits: "SweepFits") -> "Iterator[tuple[Series, str]]":
    """What each curve over rho answers: which rhos to choose from, what was shown of its minimum, and whether that hangs on the text."""
    for key, fit in fits.allocation.items():
        apart = fits.by_overlap.get(key)
        sentences = [fit.near_best.text if fit.near_best else "", fit.verdict.text, apart.text if apart else ""]
        yield key, " ".join(filter(None, sentences))


def short_answer(fit: "AllocationFit", rho: str = "rho") -> list[str]:
    """The same in few words, in lines of a title."""
    best = fit.near_best
    near = [] if best is None else [f"within {best.margin:g} nats: {best.low:.2f}\N{EN DASH}{best.high:.2f}"]
    return [*near, short_verdict(fit, rho)]


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
