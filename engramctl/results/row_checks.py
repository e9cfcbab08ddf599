"""Whether the values in rows of trials make sense, so that whoever reads them needs no doubt.

A table of the right columns may still have been changed by hand, or by a disk: what no trial can have is refused where it is read.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from engramctl.results.schema.trials import STATUSES
from engramctl.results.trial_table import FINISHED

_LARGEST = 1e300


def _between(least: float, most: float) -> Callable[[pd.Series], pd.Series]:
    return lambda values: (values >= least) & (values <= most)


def _labels(text: object) -> bool:
    """Whether a text is what the column `axes` holds: labels by axis, as JSON."""
    try:
        labels = json.loads(str(text))
    except (ValueError, RecursionError):
        return False
    return isinstance(labels, dict) and all(isinstance(label, str) for label in labels.values())


def _object(text: object) -> bool:
    try:
        return isinstance(json.loads(str(text)), dict)
    except (ValueError, RecursionError):
        return False


_MUST: dict[str, tuple[str, Callable[[pd.Series], Any]]] = {
    "rho": ("a number from 0 to 1", _between(0, 1)),
    "rho_realised": ("a number from 0 to 1", _between(0, 1)),
    "seed": ("0 or more", _between(0, _LARGEST)),
    "budget_flops": ("a number above 0", _between(math.ulp(0), _LARGEST)),
    "status": (" or ".join(STATUSES), lambda values: values.isin(STATUSES)),
    "axes": ("a JSON object of labels", lambda values: values.map(_labels)),
    "config": ("a JSON object", lambda values: values.map(_object)),
    "versions": ("a JSON object", lambda values: values.map(_object)),
    **dict.fromkeys(
        ("n_layers", "n_routed_experts", "n_slots", "p_sparse", "p_engram", "p_embedding"), ("0 or more", _between(0, _LARGEST))
    ),
    **dict.fromkeys(("p_total", "p_active", "steps", "tokens"), ("1 or more", _between(1, _LARGEST))),
}
_FINISHED_MUST: dict[str, tuple[str, Callable[[pd.Series], Any]]] = {
    "val_loss": ("a finite number: the trial has finished", _between(-1e6, 1e6)),
}


def first_nonsense(rows: pd.DataFrame) -> tuple[int, str] | None:
    """The position of the first row with a value that no trial has, and what is wrong with it; None if there is none.

    Args:
        rows: some columns of the trials table.
    """
    done = (rows["status"] == FINISHED).to_numpy() if "status" in rows else np.zeros(len(rows), dtype=bool)
    for rules, kept in ((_MUST, np.ones(len(rows), dtype=bool)), (_FINISHED_MUST, done)):
        these = rows[kept]
        for column, (must, holds) in rules.items():
            if column in these and len(these):
                wrong = np.flatnonzero(~np.asarray(holds(these[column]), dtype=bool))
                if len(wrong):
                    value = str(these[column].iloc[wrong[0]])[:60]
                    return int(np.flatnonzero(kept)[wrong[0]]), f"{column} is {value!r}; it must be {must}"
    return None
