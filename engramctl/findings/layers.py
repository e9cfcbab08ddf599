"""Loss by the layers that have a memory: a single module at each depth, and several together."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramctl.findings.losses import Losses, SeedDifferences

LAYER_AXIS = "model.memory.layers"


@dataclass(frozen=True)
class LayerLoss:
    """The loss with the memory at certain layers."""

    size: str
    budget_flops: float
    rho: float
    others: str
    """Labels of the sweep's further axes."""
    layers: tuple[int, ...]
    losses: dict[int, float]
    """By seed, nats per token; finished trials."""
    difference: SeedDifferences | None
    """From the mean over those single layers that have the most seeds; None where the two share no seed."""

    @property
    def loss(self) -> float:
        """Mean over seeds, nats per token; NaN without a finished trial."""
        return float(np.mean(list(self.losses.values()))) if self.losses else float("nan")


def layers_of(axes: str) -> tuple[tuple[int, ...], str] | None:
    """The layers and the labels of the other axes, from a trial's column `axes`; None where layers are not an axis."""
    labels = json.loads(axes)
    if LAYER_AXIS not in labels:
        return None
    layers = json.loads(labels[LAYER_AXIS].partition("=")[2])
    return tuple(layers), ", ".join(label for axis, label in labels.items() if axis != LAYER_AXIS)


def compare_layers(losses: Losses | None, wanted: pd.DataFrame) -> list[LayerLoss]:
    """A result for each choice of layers at one size and budget, single layers first.

    Args:
        losses: of the finished trials in `wanted`; None without any.
        wanted: trials of any status with their `axes`.
    """
    keys = {axes: layers_of(axes) for axes in wanted["axes"].unique()}
    size, budget = str(wanted["size"].iloc[0]), float(wanted["budget_flops"].iloc[0])
    places = sorted(
        {(rho, key[1], key[0]) for axes, rho in zip(wanted["axes"], wanted["rho"], strict=True) if (key := keys[axes])},
        key=lambda place: (place[0], place[1], len(place[2]), place[2]),
    )
    found = []
    for place in places:
        rho, others, layers = place
        if losses is None:
            found.append(LayerLoss(size, budget, rho, others, layers, {}, None))
            continue
        mine = _at(losses, keys, *place)
        single = [_at(losses, keys, *other) for other in places if other[:2] == (rho, others) and len(other[2]) == 1]
        # The comparison uses only seeds that all single layers share, so those with fewer seeds than others are left out of the mean.
        n_seeds = [len(losses.by_seed(group)) for group in single]
        complete = [group for group, n in zip(single, n_seeds, strict=True) if n == max(n_seeds) > 0]
        difference = losses.difference(mine, complete) if len(complete) > 1 else None
        found.append(LayerLoss(size, budget, rho, others, layers, losses.by_seed(mine), difference))
    return found


def _at(
    losses: Losses, keys: dict[str, tuple[tuple[int, ...], str] | None], rho: float, others: str, layers: tuple[int, ...]
) -> np.ndarray:
    axes = [name for name, key in keys.items() if key == (layers, others)]
    chosen: np.ndarray = (losses.trials["axes"].isin(axes) & (losses.trials["rho"] == rho)).to_numpy()
    return chosen
