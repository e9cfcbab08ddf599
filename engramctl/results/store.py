"""Results as Parquet: each trial is written atomically, all trials are read as one table.

There is no database, and no file is shared by two trials. A file that exists is complete; a trial whose row exists is done.
"""

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
from filelock import FileLock, Timeout

from engram.errors import UserError
from engram.files import write_atomically
from engram.foreign_files import read_json
from engramctl.results.manifest import Manifest, read_manifest, write_manifest
from engramctl.results.parquet import (
    Columns,
    as_table,
    read_table,
    read_tables,
    require_own_name,
    table_files,
    write_table,
)
from engramctl.results.row_checks import first_nonsense
from engramctl.results.schema.extensions import EXTENSION_SCHEMA
from engramctl.results.schema.trials import CURVE_SCHEMA, DOCUMENT_SCHEMA, STATUSES, TRIAL_SCHEMA
from engramctl.results.trial_table import FAILED, FINISHED

_STALE_TEMP_S = 3600.0
"""Age from which a temporary file counts as debris of a killed process rather than a write in progress."""


def list_sweeps(results: Path) -> list[str]:
    """Names of the sweeps in a results folder, sorted; UserError when there is no such folder."""
    if not results.is_dir():
        raise UserError(f"--results {results}: there is no such folder; `engramctl sweep` creates it")
    folders = (p for p in results.iterdir() if not p.name.startswith("."))
    return sorted(p.name for p in folders if (p / "sweep.json").is_file() or (p / "trials").is_dir())


class Store:
    """The results of one sweep: `<results>/<sweep>/`.

    Raises UserError when the sweep's name can't be a folder name.
    """

    def __init__(self, results: Path, sweep: str) -> None:
        if not sweep or sweep.startswith(".") or "/" in sweep or "\\" in sweep:
            raise UserError(f"sweep '{sweep}': a name without slashes that does not begin with a dot is expected")
        self.results = results
        self.sweep = sweep
        self.folder = results / sweep
        self.trials = self.folder / "trials"
        self.curves = self.folder / "curves"
        self.documents = self.folder / "documents"
        self.figures = self.folder / "figures"
        self.fits = self.folder / "fits.parquet"
        self.checkpoints = self.folder / "checkpoints"
        self.extensions = self.folder / "extensions"
        self.manifest = self.folder / "sweep.json"
        self.running = self.folder / "running.json"

    @classmethod
    def open_existing(cls, results: Path, sweep: str) -> Self:
        """Open a sweep that has results; when it has none, UserError naming the sweeps that do."""
        there = list_sweeps(results)
        if sweep not in there:
            raise UserError(f"sweep '{sweep}' has no results in {results}; there are: {', '.join(there) or 'none'}")
        return cls(results, sweep)

    def check_writable(self) -> None:
        """Create the folders and try to write to them; UserError when that fails."""
        try:
            for folder in (self.trials, self.curves, self.documents):
                folder.mkdir(parents=True, exist_ok=True)
                probe = folder / f".probe.{uuid.uuid4().hex}.tmp"
                probe.touch()
                probe.unlink()
        except OSError as problem:
            raise UserError(f"results folder {self.folder} can't be written: {problem.strerror}") from None

    @contextmanager
    def nothing_left_of_a_refusal(self) -> Iterator[None]:
        """For the block that makes a sweep: when it fails before anything was kept, the folders it made are gone again."""
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            yield
        except BaseException:
            if made and all(path.is_dir() or path.name == ".lock" for path in self.folder.rglob("*")):
                shutil.rmtree(self.folder, ignore_errors=True)
                with suppress(OSError):  # somebody else has put something beside it meanwhile
                    for folder in made[1:]:
                        folder.rmdir()
            raise

    # Writing

    def write_trial(self, row: Mapping[str, Any], curve: Columns | None, documents: Columns | None) -> None:
        """Write one trial: its curve and documents first, then its row, whose existence means that the trial is done.

        Replaces an earlier attempt at the same trial. Raises ValueError when the columns are not exactly those of the schema, a
        required value is missing, or row, sweep and status disagree; OSError when the disk refuses.
        """
        row_table = as_table(TRIAL_SCHEMA, {name: [value] for name, value in row.items()}, "trial")
        if row["sweep"] != self.sweep:
            raise ValueError(f"the trial belongs to sweep {row['sweep']!r}, this is the store of {self.sweep!r}")
        if row["status"] not in STATUSES:
            raise ValueError(f"status is {row['status']!r}, not one of {STATUSES}")
        if row["status"] == FINISHED and not (row["val_loss"] is not None and row["val_loss"] == row["val_loss"]):
            raise ValueError(f"trial {row['trial_id']} is finished but has no val_loss")
        file = f"{row['trial_id']}.parquet"
        for folder, schema, data, what in (
            (self.curves, CURVE_SCHEMA, curve, "curve"),
            (self.documents, DOCUMENT_SCHEMA, documents, "documents"),
        ):
            if data is not None:
                write_table(folder / file, as_table(schema, data, what))
            else:
                # A leftover of an earlier attempt would be taken for this one's.
                (folder / file).unlink(missing_ok=True)
        write_table(self.trials / file, row_table)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest, creating the sweep's folder if need be; OSError when the disk refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_manifest(self.manifest, manifest)

    # Reading

    def read_trials(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All trials, one row each, in the order of their ids; nulls in number columns are NaN.

        Args:
            columns: those that the caller needs, None for all; a dozen of them are read three times faster.

        Raises UserError naming the file when one can't be read or has another schema version.
        """
        names = TRIAL_SCHEMA.names if columns is None else list(columns)
        return _one_table(table_files(self.trials), TRIAL_SCHEMA, names)

    def finished_ids(self) -> set[str]:
        """Ids of the trials that needn't run again: finished and diverged ones."""
        trials = self.read_trials(["trial_id", "status"])
        return set(trials.loc[trials["status"] != FAILED, "trial_id"])

    def status(self, trial_id: str) -> str | None:
        """Status of a trial, or None if it has no row; UserError like `read_trials`."""
        try:
            status: str = read_table(self.trials / f"{trial_id}.parquet", TRIAL_SCHEMA, ["status"]).column("status")[0].as_py()
        except FileNotFoundError:
            return None
        return status

    def read_curve(self, trial_id: str) -> pd.DataFrame:
        """Training curve of a trial, one row per recorded step; UserError when it has none."""
        return self._read_existing(self.curves, [trial_id], CURVE_SCHEMA, CURVE_SCHEMA.names, "curve")[0].to_pandas()

    def read_documents(self, trial_id: str) -> pd.DataFrame:
        """Validation losses of a trial, one row per document; UserError when it has none."""
        return self.read_documents_tables([trial_id], DOCUMENT_SCHEMA.names)[0].to_pandas()

    def read_documents_tables(self, trial_ids: Sequence[str], columns: Sequence[str]) -> list[pa.Table]:
        """Some columns of the documents of several trials, as Arrow tables: for a thousand small ones pandas would take most of the time.

        Raises UserError when a trial has none.
        """
        return self._read_existing(self.documents, trial_ids, DOCUMENT_SCHEMA, columns, "documents")

    def _read_existing(
        self, folder: Path, trial_ids: Sequence[str], schema: pa.Schema, columns: Sequence[str], what: str
    ) -> list[pa.Table]:
        paths = [folder / f"{trial_id}.parquet" for trial_id in trial_ids]
        tables = read_tables(paths, schema, columns)
        for trial_id, path, table in zip(trial_ids, paths, tables, strict=True):
            if table is None:
                raise UserError(f"trial {trial_id} of sweep {self.sweep} has no {what}: there is no {path}")
        return tables

    def read_extensions(self) -> pd.DataFrame:
        """Extensions of trials to longer sequences, one row each, in the order of their ids; UserError when one can't be read."""
        return _one_table(table_files(self.extensions), EXTENSION_SCHEMA, EXTENSION_SCHEMA.names)

    def extension_sources(self) -> dict[str, str]:
        """The trial that each extension started from, by the extension's id; UserError like `read_extensions`."""
        rows = self.read_extensions()
        return dict(zip(rows["trial_id"], rows["source_trial_id"], strict=True))

    def read_manifest(self) -> Manifest | None:
        """The sweep's manifest, or None before its first run; UserError when it is damaged or of another schema version."""
        return read_manifest(self.manifest)

    def known_trials(self) -> set[str]:
        """Ids of all trials that have a row or a checkpoint, or that the manifest names. UserError when it can't be read."""
        ids = set((self.read_manifest() or Manifest()).positions())
        ids |= {path.stem for path in table_files(self.trials)}
        return ids | {path.name for path in self.checkpoints.glob("[!.]*")}

    # Locking

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the sweep for this process; UserError right away when another process holds the lock.

        The lock ends with the process, so a killed sweep leaves nothing to clean up.
        """
        self.check_writable()
        owner = self.folder / ".lock-owner.json"
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise UserError(f"sweep {self.sweep} is being run by {_lock_holder(owner)}") from None
        try:
            write_atomically(owner, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
            self._remove_debris()
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def _remove_debris(self) -> None:
        """Remove temporary files of killed processes, but not those that an orphaned worker may still be writing."""
        for temp in (*self.folder.glob(".*.tmp"), *self.folder.glob("*/.*.tmp")):
            try:
                if time.time() - temp.stat().st_mtime > _STALE_TEMP_S:
                    temp.unlink()
            except FileNotFoundError:
                continue


def _one_table(paths: Sequence[Path], schema: pa.Schema, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of files that hold a trial each, in order; UserError naming one that is damaged or a copy."""
    wanted = columns if "trial_id" in columns else ["trial_id", *columns]
    there, named = [schema.empty_table().select(columns)], []
    for path, table in zip(paths, read_tables(paths, schema, wanted), strict=True):
        # None: `engramctl rm` removed the file a moment ago.
        if table is not None:
            require_own_name(path, table)
            there.append(table.select(columns))
            named.append(path)
    rows = pa.concat_tables(there).to_pandas()
    if schema is TRIAL_SCHEMA and (found := first_nonsense(rows)) is not None:
        raise UserError(f"{named[found[0]]}: {found[1]}; if the file is damaged, delete it and run the sweep again, other trials are kept")
    return rows


def _lock_holder(path: Path) -> str:
    try:
        owner = read_json(path)
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        # It has taken the lock but not written its name yet, or is about to release the lock.
        return "another process"
