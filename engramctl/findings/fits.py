"""All fits and comparisons of a sweep: what `fit`, `plot` and `report` show."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engram.fitting.margin import MARGIN, check_margin
from engramctl.findings.layers import LayerLoss, compare_layers
from engramctl.findings.losses import Losses
from engramctl.findings.memory import MemoryGain, NoMemory, largest_gain, no_memory
from engramctl.findings.overlap import OverlapFits, fit_by_overlap
from engramctl.findings.questions import AUTO, chosen_kinds
from engramctl.findings.variants import Comparison, compare_variants
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import Series, finished, series_order, variant_order

if TYPE_CHECKING:
    from engram.fitting.results import AllocationFit, Drift, MemoryFit, Observations


@dataclass(frozen=True)
class SweepFits:
    """What a sweep has measured; a field is empty where the sweep didn't ask, or has no finished trial yet."""

    kinds: tuple[str, ...] = ()
    """What was fitted, of `questions.KINDS`."""
    allocation: dict[Series, "AllocationFit"] = field(default_factory=dict)
    by_overlap: dict[Series, OverlapFits] = field(default_factory=dict)
    """Curves on clean and on overlapping documents, where these differ."""
    drift: dict[tuple[str, str], "Drift"] = field(default_factory=dict)
    """By size and variant."""
    memory: dict[Series, "MemoryFit"] = field(default_factory=dict)
    no_memory: dict[tuple[str, float], NoMemory] = field(default_factory=dict)
    """By size and budget."""
    memory_gain: dict[Series, MemoryGain] = field(default_factory=dict)
    variants: tuple[Comparison, ...] = ()
    layers: tuple[LayerLoss, ...] = ()


def sweep_fits(sweep: SweepResults, kinds: Collection[str] | None = None, margin: float = MARGIN) -> SweepFits:
    """Fit every series of a sweep and compare its variants.

    Args:
        sweep: the sweep.
        kinds: what to fit, of `questions.KINDS`; None: all that apply.
        margin: by how much a rho may be worse than the best one to count as near it, nats per token.

    Raises UserError when a finished trial has no documents, trials of the same size and budget have different ones, or the margin is none.
    """
    check_margin(margin)
    store, trials = sweep.store, sweep.wanted
    if kinds is None:
        kinds = chosen_kinds(AUTO, sweep)
    fits = SweepFits(kinds=tuple(kinds))
    variants: list[Comparison] = []
    layers: list[LayerLoss] = []
    order = variant_order(trials)
    groups: dict[tuple[str, float], list[Series]] = {}
    curves: dict[Series, Observations] = {}
    for series in series_order(trials):
        groups.setdefault(series[:2], []).append(series)
    for (size, budget), group in groups.items():
        wanted = trials[(trials["size"] == size) & (trials["budget_flops"] == budget)]
        done = finished(wanted)
        losses = Losses(store, done) if len(done) else None
        if losses and {"allocation", "drift"} & set(kinds):
            curves |= _fit_allocations(fits, losses, group, margin)
        if losses and "memory" in kinds:
            _fit_memories(fits, losses, group)
        if "variants" in kinds:
            variants += compare_variants(losses, wanted, order)
        if "layers" in kinds:
            layers += compare_layers(losses, wanted)
    if "drift" in kinds:
        _fit_drifts(fits, curves)
    return replace(fits, variants=tuple(variants), layers=tuple(layers))


def _fit_allocations(fits: SweepFits, losses: Losses, group: list[Series], margin: float) -> "dict[Series, Observations]":
    """Fit the curves of a group; returns what was fitted."""
    from engram.fitting.optimum import fit_allocation

    curves = {}
    for series in group:
        mine = (losses.trials["variant"] == series.variant).to_numpy()
        if mine.any():
            curves[series] = losses.observations(mine, "rho")
            fit = fits.allocation[series] = fit_allocation(curves[series], margin=margin)
            if apart := fit_by_overlap(losses, mine, fit.rho_star.estimate, margin):
                fits.by_overlap[series] = apart
    return curves


def _fit_memories(fits: SweepFits, losses: Losses, group: list[Series]) -> None:
    from engram.fitting.memory_law import fit_memory

    first = next((series.variant for series in group), "")
    if without := no_memory(losses, first):
        fits.no_memory[group[0].size, group[0].budget_flops] = without
    for series in group:
        mine = ((losses.trials["variant"] == series.variant) & (losses.trials["n_slots"] > 0)).to_numpy()
        if losses.trials.loc[mine, "n_slots"].nunique() > 2:
            fits.memory[series] = fit_memory(losses.observations(mine, "n_slots"))
        if gain := largest_gain(losses, series):
            fits.memory_gain[series] = gain


def _fit_drifts(fits: SweepFits, curves: "dict[Series, Observations]") -> None:
    from engram.fitting.drift import fit_drift

    by_model: dict[tuple[str, str], list[Series]] = {}
    for series in fits.allocation:
        by_model.setdefault((series.size, series.variant), []).append(series)
    for model, group in by_model.items():
        budgets = [series.budget_flops for series in group]
        drift = fit_drift(budgets, [curves[series] for series in group], [fits.allocation[series] for series in group])
        if drift:
            fits.drift[model] = drift
