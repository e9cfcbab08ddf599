"""What the fits take and return. Losses are in nats per token, intervals are 95 %."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from engram.errors import UserError

VerdictKind = Literal["interior", "memory-helps", "experts-help", "not-distinguishable", "too-few-points"]


@dataclass(frozen=True)
class Observations:
    """Finished trials of one curve: of one size, budget and variant, validated on the same documents."""

    x: np.ndarray
    """rho, or slots, of every trial, float [n]."""
    seed: np.ndarray
    """Seed of every trial, int [n]. Trials with one seed are paired: same data order, same initial weights where shapes agree."""
    loss_sum: np.ndarray
    """Sum of the losses of every trial on every document, nats, float [n, D]."""
    n_tokens: np.ndarray
    """Predicted tokens of every document, float [D]."""

    @property
    def loss(self) -> np.ndarray:
        """Mean loss of every trial, nats per token, [n]."""
        loss: np.ndarray = self.loss_sum.sum(axis=1) / self.n_tokens.sum()
        return loss


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; NaN bounds where there is none."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """A fitted curve with its pointwise 95 % interval."""

    x: np.ndarray
    """[G]"""
    loss: np.ndarray
    """[G]"""
    low: np.ndarray
    """[G]"""
    high: np.ndarray
    """[G]"""


@dataclass(frozen=True)
class NearBest:
    """The rhos that cost little, and what a wrong choice costs: how far the curve lies above its own minimum, nats per token.

    Upper bounds of costs hold for any convex curve.
    """

    margin: float
    """What counts as little, nats per token."""
    low: float
    """Lowest rho of the range around rho_star in which the fitted curve lies at most `margin` above its minimum."""
    high: float
    """Highest rho of that range."""
    confidence: float
    """Probability that a rho chosen at random from the range costs at most `margin`, if the curve is smooth."""
    worst: float
    """What no rho of the range costs more than, at 95 %, nats per token, also if the curve has a corner between two measured rhos."""
    cost: Band
    """What each measured rho costs, with its 95 % interval."""

    @property
    def text(self) -> str:
        """The range in a sentence, with its confidence and what it costs at worst."""
        if self.low == self.high:
            chosen = f"Only rho = {self.low:.2f} is fitted within {self.margin:g} nats of the best"
        else:
            chosen = f"Within {self.margin:g} nats of the best: rho {self.low:.2f} to {self.high:.2f}"
        return (
            f"{chosen} ({100 * self.confidence:.0f} % sure if the curve is smooth; at 95 %, none of it costs more than {self.worst:.3f})."
        )


@dataclass(frozen=True)
class Verdict:
    """What the sweep has shown, as a code for scripts and in words."""

    kind: VerdictKind
    text: str
    """One or two plain sentences with the numbers."""
    p_over_one: float
    """Probability that some rho below 1 appears this much better than rho = 1 if none is; NaN if not tested."""
    p_over_lowest: float
    """The same over the lowest rho."""
    further_seeds: int | None
    """Number of seeds to add that would probably settle it, from the measured variances; 0 if it is settled, None if no sensible number
    would."""
    further_rhos: tuple[float, ...]
    """The rhos at which they would be added; empty unless there is a number."""


@dataclass(frozen=True)
class AllocationFit:
    """Loss against rho at one size and budget."""

    form: str
    """Name of the form that cross-validation chose. The curve itself is an average over all forms, weighted by their probability."""
    cv_error: dict[str, float]
    """Root mean square error of leaving out one inner rho at a time, by form, nats per token."""
    noise_sd: float
    """Standard deviation of one trial around its curve, after removing the common effect of its seed."""
    n_seeds: int
    """Seeds that every rho has."""
    rho_star: Interval
    """Where the curve is lowest. The interval takes the true curve to be convex, and no more."""
    near_best: NearBest | None
    """The range of rho that is as good as the best, within a margin: what to choose from. None if there are too few points."""
    rho_smooth: Interval
    """The same with the interval of the fitted forms: narrower, and right if the true curve bends no faster than they can."""
    loss_min: Interval
    """The curve at rho_star."""
    gain: Interval
    """Loss at rho = 1 minus loss_min; above zero, memory helps. NaN without trials at rho = 1."""
    crossing: Interval
    """The rho below rho_star where the curve is as high again as at rho = 1 (paper: 0.4); NaN if it does not rise that far."""
    band: Band | None
    """The fitted curve; None if there are too few points."""
    verdict: Verdict


@dataclass(frozen=True)
class Line:
    """The best rho against the budget, with its pointwise 95 % interval."""

    budget: np.ndarray
    """FLOPs, ascending, [Z]: the measured range and a factor of ten beyond."""
    rho: np.ndarray
    """[Z]"""
    low: np.ndarray
    """[Z]"""
    high: np.ndarray
    """[Z]"""

    def at(self, budget: float) -> Interval:
        """The best rho at a budget (FLOPs). UserError outside the line."""
        low, high = float(self.budget[0]), float(self.budget[-1])
        if not low * (1 - 1e-9) <= budget <= high * (1 + 1e-9):
            raise UserError(f"the best rho can be told from {low:.3g} to {high:.3g} FLOPs, not at {budget:.3g}")
        rho, low, high = (float(np.interp(np.log(budget), np.log(self.budget), of)) for of in (self.rho, self.low, self.high))
        return Interval(rho, low, high)


@dataclass(frozen=True)
class Drift:
    """Whether the best rho moves with the budget, from all budgets of one size and variant together."""

    slope: Interval
    """Change of rho_star per tenfold budget: the straight line through it over log10 of the measured budgets."""
    moves: Literal["up", "down", "not shown"]
    """Shown if the interval leaves out 0 and the curve's shape is shown to change."""
    p_change: float
    """Probability that the curve's shape appears to change this much with the budget if it does not. No form of the curve is assumed."""
    tilt: Interval
    """Change of the slope of loss over rho per tenfold budget, nats per token; below zero, experts gain. No form is assumed."""
    p_tilt: float
    """Two-sided probability of a tilt this large if there is none."""
    text: str
    """In words."""
    band: Line | None
    """None where nothing is drawn."""

    def forecast(self, budget: float) -> Interval:
        """The best rho at a budget (FLOPs) of the measured range or up to ten times beyond. UserError elsewhere."""
        if self.band is None:
            raise UserError("this drift has no line to read a forecast from")
        return self.band.at(budget)


@dataclass(frozen=True)
class MemoryFit:
    """Loss against memory slots on a fixed backbone (paper, 3.2)."""

    form: str
    """The most probable form. The curve itself is an average over all forms, weighted by their probability."""
    probability: dict[str, float]
    """Of every form."""
    cv_error: dict[str, float]
    """Root mean square error of leaving out one inner number of slots at a time, by form, nats per token."""
    per_tenfold: Interval
    """Change of the curve for ten times the slots, averaged over the measured range, nats: it supposes no form."""
    parameters: dict[str, dict[str, Interval]]
    """As if the law were true, by law: `log-linear` has `intercept` and `slope` (nats per tenfold slots), `power-law` `offset`, `scale` and
    `exponent`."""
    band: Band
    """The curve for the average over all seeds, over the measured range and as far beyond as can be told."""
    measured: tuple[float, float]
    """Range of slots that has data; the rest of the band is extrapolation."""
    text: str


@dataclass(frozen=True)
class PairedDifference:
    """Loss of A minus loss of B on the same documents; below zero, A is better."""

    difference: Interval
    p_value: float
    """Two-sided probability of a difference this large if there were none."""
    n_documents: int
    n_pairs: int
    """Pairs of trials, matched by seed."""
    text: str
