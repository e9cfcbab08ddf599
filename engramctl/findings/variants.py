"""Each variant of a sweep against the first, at the same size, budget and rho."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramctl.findings.losses import Losses, SeedDifferences


@dataclass(frozen=True)
class Comparison:
    """A variant against the reference variant."""

    size: str
    budget_flops: float
    variant: str
    rho: float
    reference: str
    reference_rho: float
    """Differs from `rho` only where the variant has a single rho of its own, such as 1 without memory."""
    loss: float
    """Mean over the variant's finished trials, nats per token; NaN without any."""
    reference_loss: float
    difference: SeedDifferences | None
    """None where the two share no finished seed."""


def rho_pairs(wanted: pd.DataFrame, order: list[str]) -> list[tuple[str, float, float]]:
    """What is compared with the first variant of `order`, the reference: each variant, its rho and the reference's rho.

    `wanted` are trials of one size and budget, of any status. A variant is compared at each rho that the reference has too; a variant
    with a single rho, which the reference lacks, is compared with the reference at each rho of the latter.
    """
    rhos = {variant: sorted(group["rho"].unique().tolist()) for variant, group in wanted.groupby("variant")}
    names = [name for name in order if name in rhos]
    pairs = []
    for name in names[1:]:
        common = [rho for rho in rhos[name] if rho in rhos[names[0]]]
        pairs += [(name, rho, rho) for rho in common]
        if not common and len(rhos[name]) == 1:
            pairs += [(name, rhos[name][0], rho) for rho in rhos[names[0]]]
    return pairs


def compare_variants(losses: Losses | None, wanted: pd.DataFrame, order: list[str]) -> list[Comparison]:
    """A comparison for each of `rho_pairs`, in their order; `losses` are of the finished trials in `wanted`, None without any."""
    size, budget = str(wanted["size"].iloc[0]), float(wanted["budget_flops"].iloc[0])
    names = [name for name in order if name in set(wanted["variant"])]
    found = []
    for variant, rho, reference_rho in rho_pairs(wanted, order):
        loss, reference_loss, difference = float("nan"), float("nan"), None
        if losses is not None:
            a, b = _at(losses, variant, rho), _at(losses, names[0], reference_rho)
            loss, reference_loss = (float(losses.trials.loc[chosen, "val_loss"].mean()) for chosen in (a, b))
            difference = losses.difference(a, [b])
        found.append(Comparison(size, budget, variant, rho, names[0], reference_rho, loss, reference_loss, difference))
    return found


def _at(losses: Losses, variant: str, rho: float) -> np.ndarray:
    chosen: np.ndarray = ((losses.trials["variant"] == variant) & (losses.trials["rho"] == rho)).to_numpy()
    return chosen
