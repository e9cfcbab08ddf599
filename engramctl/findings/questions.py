"""What a sweep can answer: which kinds of fits and figures apply to it, and why the others don't."""

import json

from engram.errors import UserError
from engramctl.findings.layers import LAYER_AXIS
from engramctl.findings.variants import rho_pairs
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import variant_order

KINDS = ("allocation", "drift", "memory", "variants", "layers")
AUTO = "auto"
EVALS = "evals"
"""Benchmark scores, which need no fit and no documents."""
RULER = "ruler"
"""Scores of RULER's categories by length."""


def refusals(sweep: SweepResults) -> dict[str, str | None]:
    """Why a kind doesn't apply to a sweep, or None if it does; by kind, in the order of KINDS."""
    wanted, slots = sweep.wanted, sweep.manifest.is_over_slots
    curves = wanted.groupby(["size", "budget_flops", "variant"])["rho"].nunique()
    curves = curves[curves > 1]
    budgets = curves.reset_index().groupby(["size", "variant"]).size()
    layered = any(LAYER_AXIS in json.loads(axes) for axes in wanted["axes"].unique())
    order = variant_order(wanted)
    compared = any(rho_pairs(group, order) for _, group in wanted.groupby(["size", "budget_flops"]))
    over_slots = "it varies slots on a fixed backbone" if slots else None
    one_budget = "it needs loss over rho at two budgets or more"
    reasons = {
        "allocation": over_slots or (None if len(curves) else "no size, budget and variant of it has two values of rho"),
        "drift": over_slots or (None if (budgets > 1).any() else one_budget),
        "memory": None if slots else "it does not vary slots",
        "variants": over_slots or (None if compared else "it has no two variants to compare at one rho"),
        "layers": over_slots or (None if layered else f"{LAYER_AXIS} is not one of its axes"),
    }
    if all(reasons.values()):
        # A single rho of a single variant is still drawn, to show its trials and what is missing.
        reasons["allocation"] = None
    return reasons


def chosen_kinds(kind: str, sweep: SweepResults) -> list[str]:
    """The kinds to show for `--kind`; UserError in one line when the one that was asked for doesn't apply."""
    if kind != AUTO and kind not in KINDS:
        raise UserError(f"--kind {kind}: {AUTO}, {', '.join(KINDS)}, {EVALS}, {RULER} are allowed")
    reasons = refusals(sweep)
    apply = [name for name, reason in reasons.items() if reason is None]
    if kind == AUTO:
        return apply
    if reason := reasons[kind]:
        raise UserError(f"--kind {kind} does not apply to sweep '{sweep.name}': {reason}; what applies: {', '.join(apply)}")
    return [kind]
