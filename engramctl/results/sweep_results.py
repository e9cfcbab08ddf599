"""The one way to open a sweep: its rows, compared with the trials that its manifest wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import pandas as pd

from engram.errors import UserError
from engramctl.present.format import format_flops, format_rho
from engramctl.results.defaults import command
from engramctl.results.manifest import Manifest
from engramctl.results.store import Store
from engramctl.results.trial_table import (
    DIVERGED,
    FAILED,
    FINDING_COLUMNS,
    FINISHED,
    IDENTITY,
    MISSING,
    SERIES,
    finished,
    missing_slots,
)


@dataclass(frozen=True, eq=False)
class SweepResults:
    """What a sweep has, what it lacks, and what it no longer asks for."""

    store: Store
    manifest: Manifest
    """An empty one if the folder has none; then every row is wanted."""
    trials: pd.DataFrame
    """Rows of the trials that the sweep wants, of any status."""
    missing: pd.DataFrame
    """Wanted trials without a row (columns IDENTITY)."""
    left_out: pd.DataFrame
    """Rows that the manifest doesn't name, from an earlier version of the sweep; mixing them in would compare different configs."""

    @classmethod
    def open(cls, results: Path, sweep: str, columns: Sequence[str] | None = FINDING_COLUMNS) -> Self:
        """Open a sweep by name.

        Args:
            results: folder that holds one folder for each sweep.
            sweep: name of the sweep.
            columns: columns of the trials table that are needed; None: all.

        Raises UserError when there is no such sweep, or one of its files can't be read.
        """
        return cls.of_store(Store.open_existing(results, sweep), columns)

    @classmethod
    def of_store(cls, store: Store, columns: Sequence[str] | None = FINDING_COLUMNS) -> Self:
        """The same for a sweep whose folder is known and which may have no results yet."""
        return cls.of_rows(store, store.read_manifest(), store.read_trials(columns))

    @classmethod
    def of_rows(cls, store: Store, manifest: Manifest | None, rows: pd.DataFrame) -> Self:
        """Divide the rows of the trials table by whether the manifest wants them."""
        manifest = manifest or Manifest()
        if manifest.trials is None:
            return cls(store, manifest, rows, pd.DataFrame(columns=IDENTITY), rows.iloc[:0])
        wanted = pd.DataFrame([[getattr(trial, name) for name in IDENTITY] for trial in manifest.trials], columns=IDENTITY)
        known = rows["trial_id"].isin(wanted["trial_id"])
        missing = wanted[~wanted["trial_id"].isin(rows["trial_id"])]
        parts = (rows[known], missing, rows[~known])
        return cls(store, manifest, *(part.reset_index(drop=True) for part in parts))

    @property
    def name(self) -> str:
        """Name of the sweep, and of its folder."""
        return self.store.sweep

    @property
    def finished(self) -> pd.DataFrame:
        """The wanted trials that have a loss."""
        return finished(self.trials)

    @cached_property
    def wanted(self) -> pd.DataFrame:
        """FINDING_COLUMNS of every wanted trial, in the manifest's order; trials without a row have status MISSING and few other values."""
        known = {**self.manifest.sweep.variant_axes, **dict(zip(self.trials["variant"], self.trials["axes"], strict=True))}
        missing = self.missing.assign(status=MISSING, error=None, val_loss=float("nan"))
        missing["axes"] = [known.get(variant, "{}") for variant in missing["variant"]]
        missing["n_slots"] = missing_slots(self.trials, missing) if self.manifest.is_over_slots else 0
        frames = [frame for frame in (self.trials[FINDING_COLUMNS], missing) if len(frame)]
        both = pd.concat(frames, ignore_index=True) if frames else self.trials[FINDING_COLUMNS]
        positions = self.manifest.positions()
        return both.sort_values("trial_id", key=lambda ids: ids.map(positions), kind="stable", ignore_index=True) if positions else both

    @property
    def unfinished(self) -> pd.DataFrame:
        """Trials without a loss: IDENTITY, `status` (missing, diverged or failed) and `error`, in that order of status."""
        rows = self.trials[self.trials["status"] != FINISHED][[*IDENTITY, "status", "error"]]
        absent = self.missing.assign(status=MISSING, error=None)[[*IDENTITY, "status", "error"]]
        both = pd.concat([frame.astype(object) for frame in (absent, rows)], ignore_index=True)
        order = both["status"].map({MISSING: 0, DIVERGED: 1, FAILED: 2})
        return both.assign(order=order).sort_values(["order", *SERIES, "rho", "seed"]).drop(columns="order").reset_index(drop=True)

    def require_finished(self) -> Self:
        """The sweep itself; UserError when no trial has finished, or two finished ones are at the same point of the sweep."""
        if self.finished.empty:
            counts = ", ".join(f"{n} {status}" for status, n in self.unfinished["status"].value_counts(sort=False).items())
            more = f"{command('status', self.name, self.store.results)} tells more"
            raise UserError(f"sweep '{self.name}' in {self.store.results} has no finished trial ({counts or 'none was started'}); {more}")
        if self.finished.duplicated([*SERIES, "rho", "seed"]).any():
            # They may differ in any column.
            require_one_trial_each(type(self).of_store(self.store, None).trials)
        return self


def require_one_trial_each(trials: pd.DataFrame) -> None:
    """UserError when a (size, budget, variant, rho, seed) has several finished trials, because the sweep varies something else too."""
    done = finished(trials)
    key = [*SERIES, "rho", "seed"]
    twins = done[done.duplicated(key, keep=False)]
    if twins.empty:
        return
    first = twins.iloc[0]
    group = twins[(twins[key] == first[key]).all(axis=1)]
    config = ["corpus", "learning_rate", "batch_size", "seq_len", "n_layers", "width", "expert_width", "top_k", "n_routed_experts"]
    config += ["branches", "attention", "memory_design", "memory_dim", "max_ngram", "hash_heads", "optimizer", "schedule"]
    config += ["corpus_fingerprint", "tokenizer_fingerprint", "config"]
    differs = next((c for c in config if group[c].nunique() > 1), "trial_id")
    variant = f"variant {first['variant']}, " if first["variant"] else ""
    where = f"size {first['size']}, budget {format_flops(first['budget_flops'])}, {variant}rho {format_rho(first['rho'])}"
    raise UserError(
        f"sweep {first['sweep']} has {len(group)} finished trials at {where}, seed {first['seed']};"
        f" the allocation figure needs one (they differ in {differs})"
    )
