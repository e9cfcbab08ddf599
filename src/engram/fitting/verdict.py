"""What a sweep has shown about its minimum: tests that assume no form of the curve, and the verdict in words.

The advantage of other rhos over an end is the largest over all runs of neighbouring rhos, each in units of its standard error. If no rho
is better than the end, the largest advantages come from a flat curve; their distribution under the noise of this design gives p.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from engram.fitting.layout import Layout
from engram.fitting.noise import NoiseByRho
from engram.fitting.results import Interval, Verdict, VerdictKind

LEVEL = 0.015
"""Of each test at each look. Whoever looks after every seed and stops when a minimum is shown finds a false one in at most 5 % of the
sweeps over eight looks (docs/fitting.md); at 0.05 a look it would be up to 16 %."""
_POWER = 0.8
_MOST_SEEDS = 100
"""Advice to add more seeds than this would be useless."""


@dataclass(frozen=True)
class Advantage:
    """Of other rhos over one end."""

    p: float
    nats: float
    """Advantage of the run of neighbours that stands out most."""
    further_seeds: int | None
    """Seeds to add to show an advantage of this size four times out of five; None if no number up to 100 would."""
    rhos: tuple[float, ...]
    """Where they would be added: the end, and the run of neighbours that stands out most."""


def too_few(reason: str) -> Verdict:
    """The verdict when nothing can be tested; `reason` is a whole sentence."""
    return Verdict("too-few-points", reason, float("nan"), float("nan"), None, ())


def advantage(
    layout: Layout, document_covariance: np.ndarray, covariance: np.ndarray, noise: NoiseByRho, errors: np.ndarray, end: int
) -> Advantage:
    """Test all points against the first (`end` 0) or the last (-1); `errors` are those of the means in each replicate, [B, k]."""
    contrasts = np.insert(-_runs(len(layout.x) - 1), 0 if end == 0 else len(layout.x) - 1, 1.0, axis=1)
    from_documents = np.einsum("wk,kl,wl->w", contrasts, document_covariance, contrasts)
    from_trials = np.einsum("wk,kl,wl->w", contrasts, covariance, contrasts) - from_documents
    se = np.sqrt(np.maximum(from_documents, 0) + from_trials) + 1e-12 * max(float(np.ptp(layout.means)), 1e-300)
    observed = contrasts @ layout.means
    best = int((observed / se).argmax())
    null = (errors @ contrasts.T / se).max(axis=1)
    p = float((1 + (null >= observed[best] / se[best]).sum()) / (1 + len(null)))
    critical = float(np.quantile(null, 1 - LEVEL))
    more = (
        0
        if p < LEVEL
        else _further_seeds(noise.end_dof(end), layout, float(observed[best]), from_documents[best], from_trials[best], critical)
    )
    return Advantage(p, float(observed[best]), more, tuple(layout.x[contrasts[best] != 0].tolist()))


def _runs(k: int) -> np.ndarray:
    """Means over every run of neighbours among k points, [W, k]."""
    rows = [np.pad(np.full(size, 1 / size), (start, k - start - size)) for start in range(k) for size in range(1, k - start + 1)]
    return np.array(rows)


def _further_seeds(dof: float, layout: Layout, nats: float, from_documents: float, from_trials: float, critical: float) -> int | None:
    """Seeds to add: they shrink the variance due to trials, not that due to documents, and show the noise at the end, whose degrees of
    freedom `dof` the critical value hangs on."""
    further = np.arange(1, _MOST_SEEDS + 1)
    seeds = float(layout.counts.mean())
    threshold = critical * special.stdtrit(dof + further, 1 - LEVEL) / special.stdtrit(dof, 1 - LEVEL)
    se = np.sqrt(from_documents + from_trials * seeds / (seeds + further))
    enough = nats >= (threshold + special.ndtri(_POWER)) * se
    return int(further[enough.argmax()]) if enough.any() else None


def decide(
    layout: Layout, noise: NoiseByRho, over_top: Advantage, over_lowest: Advantage, rho_star: Interval, gain: Interval, remark: str
) -> Verdict:
    """The verdict: an interior minimum if both ends are beaten and the curve is lowest inside. `gain` is over the highest rho measured."""
    lowest, top = float(layout.x[0]), float(layout.x[-1])
    best, inside = rho_star.estimate, lowest < rho_star.estimate < top
    beats_top, beats_lowest = over_top.p < LEVEL, over_lowest.p < LEVEL
    gained = f"{gain.estimate:.3f} nats ({gain.low:.3f} to {gain.high:.3f})"
    one_trial = f"noise of one trial is {noise.sd:.3f}"
    kind: VerdictKind
    open_end: Advantage | None = None
    if beats_top and beats_lowest and inside:
        kind = "interior"
        text = f"Interior minimum shown: rho* = {best:.2f} ({rho_star.low:.2f} to {rho_star.high:.2f}), {gained} below rho = {top:g}."
    elif beats_top and best == lowest:
        kind = "memory-helps"
        text = f"Memory helps: {gained} below rho = {top:g}. Loss is lowest at rho = {lowest:g}, the lowest measured; "
        text += f"its minimum lies at {rho_star.high:.2f} at most."
    elif beats_top:
        kind, open_end = "memory-helps", over_lowest
        text = f"Memory helps: {gained} below rho = {top:g}. A minimum inside is not shown: the best rho is "
        text += f"{max(over_lowest.nats, 0):.3f} nats below rho = {lowest:g}, {one_trial}; {_advice(open_end)}"
    elif beats_lowest and best == top:
        kind = "experts-help"
        text = f"No share of memory is shown to help: loss is lowest at rho = {top:g}, and its minimum lies at {rho_star.low:.2f} at least."
    else:
        kind, open_end = "not-distinguishable", over_top
        text = f"Not distinguishable from rho = {top:g}: the best rho is {max(over_top.nats, 0):.3f} nats lower, {one_trial}; "
        text += _advice(open_end)
    if top < 1:
        text += " There are no trials at rho = 1, so what memory gains cannot be told."
    text = f"{text} {remark}".rstrip()
    p_over_one = over_top.p if top == 1 else float("nan")
    if open_end is None:
        return Verdict(kind, text, p_over_one, over_lowest.p, 0, ())
    return Verdict(kind, text, p_over_one, over_lowest.p, open_end.further_seeds, open_end.rhos if open_end.further_seeds else ())


def _advice(end: Advantage) -> str:
    if end.further_seeds is None:
        return "no sensible number of further seeds would settle it."
    rhos = ", ".join(f"{rho:g}" for rho in end.rhos)
    return f"about {end.further_seeds} further seed{'s' if end.further_seeds != 1 else ''} at rho = {rhos} would settle it."
