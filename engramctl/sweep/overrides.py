"""Applying changes to nested settings."""

from collections.abc import Mapping
from typing import Any

from engram.config.errors import CHOOSERS


def lay_over(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the leaves of `changes` in place of their own.

    Where `changes` choose another design or kind, the settings of the old one are dropped: they wouldn't fit.
    """
    return deep_merge(_without_old_choices(values, changes), changes)


def deep_merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `changes` in place of its own."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_old_choices(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without the settings of designs and kinds that `changes` replaces by another."""
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
