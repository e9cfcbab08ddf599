"""Strict JSON for programs: plain values, no NaN, no infinity."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from engramctl.present.format import plain

if TYPE_CHECKING:
    import pandas as pd

    from engramctl.findings.advice import Advice
    from engramctl.findings.fits import SweepFits

_BANDS = ("band",)


def print_json(value: Any) -> None:
    """Print strict JSON (no NaN) on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows as dicts of plain Python values: NaN, infinity and nulls are None."""
    return [{str(name): plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def fits_as_json(fits: "SweepFits", bands: bool) -> dict[str, Any]:
    """Everything but the bootstrap replicates, with NaN as None; fitted curves and their bands only if `bands`."""

    def of(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            shown = [field.name for field in fields(value) if field.repr and (bands or field.name not in _BANDS)]
            return {name: of(getattr(value, name)) for name in shown}
        if isinstance(value, Mapping):
            return {str(key): of(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [of(inner) for inner in value]
        return plain(value)

    return {
        "kinds": list(fits.kinds),
        "allocation": [{**key._asdict(), **of(fit)} for key, fit in fits.allocation.items()],
        "by_overlap": [{**key._asdict(), **of(apart)} for key, apart in fits.by_overlap.items()],
        "drift": [{"size": size, "variant": variant, **of(drift)} for (size, variant), drift in fits.drift.items()],
        "memory": [{**key._asdict(), **of(fit), "largest_gain": of(fits.memory_gain.get(key))} for key, fit in fits.memory.items()],
        "no_memory": [{"size": size, "budget_flops": budget, **of(none)} for (size, budget), none in fits.no_memory.items()],
        "variants": of(fits.variants),
        "layers": of(fits.layers),
    }


def advice_as_json(settling: "Sequence[Advice]") -> list[dict[str, Any]]:
    """What would settle each open series, with NaN as None."""
    return [
        {
            **one.series._asdict(),
            **{name: plain(getattr(one, name)) for name in ("further_seeds", "rhos", "seeds", "trials", "seconds")},
        }
        for one in settling
    ]
