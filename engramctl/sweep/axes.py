"""A sweep's axes besides size, rho, budget and seed: fields of the configs, or named variants of them.

In a sweep file an axis is a field with its values,

    axes:
      train.learning_rate: [0.01, 0.02]

or a name with variants, each a set of changes to fields below `model` and `train`; with `rhos` or `slots` a variant
gets values of its own:

    axes:
      design:
        engram: {}
        none: {model.memory.design: none, rhos: [1]}

Every combination is run. A trial's variant is made up of the labels of its combination.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from engramctl.sweep.limits import MAX_DEPTH, MAX_VARIANTS

AxisValues = dict[str, dict[str, Any]]
"""Label -> changes by dotted path."""

ROOTS = ("model", "train")
OWN_POINTS = ("rhos", "slots")


@dataclass(frozen=True)
class Variant:
    """One combination of the axes' values."""

    labels: tuple[tuple[str, str], ...]
    """Pairs of axis and label, in the order of the sweep file."""
    changes: dict[str, Any]
    """Nested changes to a sweep: keys `model`, `train`, `rhos` and `slots`."""

    @property
    def name(self) -> str:
        """The labels in one line; empty where the sweep has no axes."""
        return ", ".join(label for _, label in self.labels)


def normalised(axes: Any) -> dict[str, AxisValues]:
    """Axes as written in a sweep file, as axis -> label -> changes by path. ValueError names the axis and what is allowed."""
    if not isinstance(axes, Mapping):
        raise ValueError(f"{axes!r} is not allowed: a mapping of axes is expected")
    labelled = {str(name): _axis(str(name), values) for name, values in axes.items()}
    if (n := math.prod(map(len, labelled.values()))) > MAX_VARIANTS:
        raise ValueError(f"their values make {n:,} combinations; at most {MAX_VARIANTS:,} are allowed")
    return labelled


def _axis(name: str, values: Any) -> AxisValues:
    if not values:
        raise ValueError(f"{name}: a list of values or a mapping of named variants is expected, and at least one")
    if isinstance(values, list | tuple):
        if not _is_field(name):
            raise ValueError(f"{name}: a list of values is for a field below model or train, such as train.learning_rate")
        labelled: AxisValues = {}
        for value in values:
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            labelled[f"{name.rpartition('.')[2]}={text}"] = {name: value}
        return labelled
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: {values!r} is not allowed: a list of values or a mapping of named variants is expected")
    labelled = {}
    for label, changes in values.items():
        where = f"{name}.{label}"
        if not str(label).strip():
            raise ValueError(f"{name}: a variant needs a name")
        if not isinstance(changes or {}, Mapping):
            raise ValueError(f"{where}: {changes!r} is not allowed: changes such as {{model.memory.design: value}} are expected")
        for path in changes or {}:
            if path not in OWN_POINTS and not (_is_field(str(path)) or path in ROOTS):
                raise ValueError(f"{where}.{path}: no such field; a variant changes fields below model and train, rhos and slots")
        labelled[str(label)] = dict(changes or {})
    return labelled


def _is_field(path: str) -> bool:
    root, dot, rest = path.partition(".")
    return root in ROOTS and bool(dot) and all(rest.split(".")) and rest.count(".") < MAX_DEPTH


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """`{"model.memory.design": "value"}` -> `{"model": {"memory": {"design": "value"}}}`; ValueError when two paths collide."""
    tree: dict[str, Any] = {}
    for path, value in changes.items():
        *groups, field = path.split(".")
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{path}: {group} is set to a value as well")
        old = inner.get(field)
        if field in inner and not (isinstance(old, dict) and isinstance(value, dict) and not old.keys() & value.keys()):
            raise ValueError(f"{path} is set twice")
        inner[field] = {**old, **value} if isinstance(old, dict) else value
    return tree


def combinations(axes: Mapping[str, AxisValues]) -> list[Variant]:
    """All variants; without axes a single one that has no labels and no changes. ValueError when two axes set the same field."""
    variants = []
    for choice in itertools.product(*[list(values.items()) for values in axes.values()]):
        paths: dict[str, Any] = {}
        for (label, changes), name in zip(choice, axes, strict=True):
            if both := paths.keys() & changes.keys():
                raise ValueError(f"{name}.{label}: {sorted(both)[0]} is set by another axis too")
            paths |= changes
        labels = tuple((name, label) for name, (label, _) in zip(axes, choice, strict=True))
        variants.append(Variant(labels, nested(paths)))
    return variants
