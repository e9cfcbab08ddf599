"""A sweep's trials, read for fits and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from engram.errors import UserError
from engramctl.results_options import command
from engramctl.store import Store
from engramctl.summary import SERIES, Coverage, coverage, require_one_trial_each, unfinished
from engramctl.wanted import TRIAL_COLUMNS, finished, wanted_trials


@dataclass(frozen=True)
class Read:
    """A sweep with at least one finished trial."""

    store: Store
    manifest: Mapping[str, Any] | None
    covered: Coverage
    """With the columns TRIAL_COLUMNS."""
    wanted: pd.DataFrame
    """`wanted.wanted_trials`."""


def read_wanted(results: Path, sweep: str) -> Read:
    """UserError when there is no such sweep, none of its trials has finished, or two finished ones have the same place in it."""
    store = Store.open_existing(results, sweep)
    manifest = store.read_manifest()
    covered = coverage(store.read_trials(TRIAL_COLUMNS), manifest)
    done = finished(covered.trials)
    if done.empty:
        absent = unfinished(covered)
        counts = ", ".join(f"{n} {status}" for status, n in absent["status"].value_counts(sort=False).items())
        more = f"{command('status', sweep, results)} tells more"
        raise UserError(f"sweep '{sweep}' in {results} has no finished trial ({counts or 'none was started'}); {more}")
    if done.duplicated([*SERIES, "rho", "seed"]).any():
        # What they differ in may be any column.
        require_one_trial_each(coverage(store.read_trials(), manifest).trials)
    return Read(store, manifest, covered, wanted_trials(covered, manifest))
