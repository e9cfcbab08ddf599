"""Removing trials, or a whole sweep, so that a kill midway leaves whole trials and nothing that merely looks like one.

Folders are first renamed to a hidden name, which no reader looks at; a later removal clears up what a killed one left behind.
"""

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from engram.errors import UserError
from engramctl.results.parquet import table_files
from engramctl.results.schema.trials import STATUSES
from engramctl.results.store import Store

_SUFFIX = ".removed"


@dataclass(frozen=True)
class Removal:
    """What a removal would delete."""

    trials: list[str]
    """Ids."""
    statuses: dict[str, int]
    """Number of trials by status: also `extended` (an extension of a trial), `missing` (no row) and `unreadable` (rows can't be read)."""
    n_checkpoints: int
    n_bytes: int


def sweep_removal(store: Store) -> Removal:
    """What removing a whole sweep would delete; UserError when its folder is a link, whose target is not ours to remove."""
    if store.folder.is_symlink():
        raise UserError(f"{store.folder} is a link to {store.folder.resolve()}; remove the folder and the link yourself")
    ids = sorted(path.stem for path in table_files(store.trials))
    checkpoints = sum(1 for path in store.checkpoints.glob("[!.]*/[!.]*") if path.is_dir())
    return Removal(ids, _statuses(store, ids), checkpoints, _bytes(store.folder))


def trials_removal(store: Store, ids: Collection[str]) -> Removal:
    """What removing some trials would delete."""
    files = [path for trial_id in ids for path in _parts(store, trial_id)]
    checkpoints = sum(1 for i in ids for path in (store.checkpoints / i).glob("[!.]*") if path.is_dir())
    return Removal(list(ids), _statuses(store, ids), checkpoints, sum(map(_bytes, files)))


def remove_sweep(store: Store) -> None:
    """Remove a sweep's whole folder; the caller holds its lock. UserError when that fails."""
    try:
        _clear_leftovers(store.results)
        hidden = _hide(store.folder)
        shutil.rmtree(hidden)
    except OSError as problem:
        raise UserError(f"sweep {store.sweep} can't be removed from {store.results}: {problem.strerror}") from None


def remove_trials(store: Store, ids: Collection[str]) -> None:
    """Remove everything that a sweep has of some trials, their manifest entries included; the caller holds its lock.

    The row goes first: without it the rest is no trial. Raises UserError when something can't be removed.
    """
    try:
        parts = {trial_id: _parts(store, trial_id) for trial_id in ids}
        for folder in _folders(store):
            if not folder.is_symlink():
                _clear_leftovers(folder)
        for trial_id in ids:
            row = store.trials / f"{trial_id}.parquet"
            for path in sorted(parts[trial_id], key=lambda path: path != row):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(_hide(path))
                else:
                    path.unlink(missing_ok=True)
        manifest = store.read_manifest()
        if manifest is not None and manifest.positions().keys() & set(ids):
            # A trial that the sweep no longer asks for would stay missing for ever; `engramctl sweep` adds the others again.
            store.write_manifest(manifest.without(set(ids)))
    except OSError as problem:
        raise UserError(f"trials of {store.folder} can't be removed: {problem.strerror} ({problem.filename})") from None


def _statuses(store: Store, ids: Collection[str]) -> dict[str, int]:
    try:
        rows = store.read_trials(["trial_id", "status"])
        known = {path.stem: "extended" for path in table_files(store.extensions)}
        known |= dict(zip(rows["trial_id"], rows["status"], strict=True))
        counts = Counter(known.get(trial_id, "missing") for trial_id in ids)
        return {status: counts[status] for status in (*STATUSES, "extended", "missing") if counts[status]}
    except UserError:
        # Getting rid of unreadable results is a good reason to remove them.
        return {"unreadable": len(ids)} if ids else {}


def _folders(store: Store) -> Iterator[Path]:
    """Folders with a file or folder per trial, including kinds that don't exist yet."""
    return (path for path in store.folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _parts(store: Store, trial_id: str) -> list[Path]:
    """Everything that belongs to a trial: `<kind>/<id>` and `<kind>/<id>.<suffix>`. UserError for an id that would lead elsewhere."""
    # Ids are checked where they are read; here nothing may depend on it.
    if not trial_id.isalnum():
        raise UserError(f"{trial_id!r} is no id of a trial; nothing was removed")
    found = [path for folder in _folders(store) for path in (folder / trial_id, *folder.glob(f"{trial_id}.*")) if os.path.lexists(path)]
    inside = store.folder.resolve()
    for path in found:
        if path.parent.resolve().parent != inside:
            raise UserError(f"{path} lies outside of {store.folder}, behind a link; nothing was removed")
    return found


def _hide(folder: Path) -> Path:
    hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{_SUFFIX}")
    folder.rename(hidden)
    return hidden


def _clear_leftovers(folder: Path) -> None:
    for left in folder.glob(f".*{_SUFFIX}"):
        shutil.rmtree(left, ignore_errors=True)


def _bytes(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names)
