"""Loss by the layers that have a memory: one module at each depth, and several together."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramctl.findings.losses import Losses, SeedDifferences

LAYER_AXIS = "model.memory.layers"


@dataclass(frozen=True)
class LayerLoss:
    """Loss with the memory at these layers."""

    size: str
    budget_flops: float
    rho: float
    others: str
    """Labels of the sweep's further axes."""
    layers: tuple[int, ...]
    losses: dict[int, float]
    """By seed, nats per token; finished trials."""
    difference: SeedDifferences | None
    """To the mean over the single layers that have all seeds; None where the two share no seed."""

    @property
    def loss(self) -> float:
        """Mean over seeds; NaN without a finished trial."""
        return float(np.mean(list(self.losses.values()))) if self.losses else float("nan")


def layers_of(axes: str) -> tuple[tuple[int, ...], str] | None:
    """The column `axes` of a trial -> its layers, and the labels of its other axes; None where layers are no axis."""
    labels = json.loads(axes)
    if LAYER_AXIS not in labels:
        return None
    layers = json.loads(labels[LAYER_AXIS].partition("=")[2])
    return tuple(layers), ", ".join(label for axis, label in labels.items() if axis != LAYER_AXIS)


def compare_layers(losses: Losses | None, wanted: pd.DataFrame) -> list[LayerLoss]:
    """One for each choice of layers of one size and budget, single layers first.

    `wanted` are trials of any status with their `axes`; `losses` are the finished ones among them, None without any.
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
        # A layer that lacks a seed would leave all others without it: the mean is over those that have the most.
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
