"""Laying changes over declared values."""

from collections.abc import Mapping
from typing import Any

from engram.config.errors import CHOOSERS


def lay_over(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the leaves of `changes` laid over them.

    Where `changes` choose another design or kind, the settings of the old one go: they would not fit.
    """
    return deep_merge(_without_old_choices(values, changes), changes)


def deep_merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `changes` laid over it."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_old_choices(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without the settings of designs and kinds that `changes` chooses another one for: they would not fit it."""
    kept = dict(values)
    for name, old in values.items():
        new = changes.get(name)
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            continue
        chooser = CHOOSERS.get(name)
        if chooser in new and new[chooser] != old.get(chooser):
            kept[name] = {}
        else:
            kept[name] = _without_old_choices(old, new)
    return kept
