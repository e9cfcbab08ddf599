"""Which sweep a checkpoint belongs to, and where findings about it are kept."""

from dataclasses import dataclass
from pathlib import Path

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.training.checkpoints.files import FINAL
from engramctl.results.store import Store, list_sweeps
from engramctl.results.trial_ids import find_trial

EXTENSION_FILE = "extension.parquet"
"""Holds the row of an extension outside a results folder, in the folder of its checkpoint."""


@dataclass(frozen=True)
class Home:
    """Where findings about a trained model go."""

    folder: Path
    """Absolute: the folder of the sweep that the model is a trial of, else that of its checkpoint."""
    sweep: Store | None
    """None for a checkpoint outside a sweep."""


def home_of(final: Path, trial_id: str) -> Home:
    """The home of a model.

    A checkpoint belongs to a sweep if it lies in `SWEEP/checkpoints/TRIAL` and the sweep has a manifest, or a row of the trial.

    Args:
        final: folder with the final weights: `final`, or a copy of it.
        trial_id: id of the trial or extension.
    """
    own = final.absolute()
    if own.name == FINAL:
        own = own.parent
    sweep = own.parent.parent
    known = [sweep / "sweep.json", *(sweep / kind / f"{trial_id}.parquet" for kind in ("trials", "extensions"))]
    if own.parent.name == "checkpoints" and any(file.is_file() for file in known):
        return Home(sweep, Store(sweep.parent, sweep.name))
    return Home(own, None)


def checkpoint_of(typed: str, results: Path) -> Path:
    """The checkpoint of SWEEP/TRIAL, where TRIAL is an id or the beginning of one; UserError when there is none."""
    sweep, _, trial = typed.partition("/")
    if not trial or "/" in trial or (results.is_dir() and sweep not in list_sweeps(results)):
        raise UserError(f"'{typed}' is neither the folder of a checkpoint nor SWEEP/TRIAL, a trial of a sweep in {results}")
    store = Store.open_existing(results, sweep)
    trial_id = find_trial(trial, store.known_trials(), sweep)
    if not (store.checkpoints / trial_id).is_dir():
        raise UserError(f"trial {trial_id} of sweep {sweep} has no checkpoint in {store.checkpoints}: it stays where the trial was trained")
    return store.checkpoints / trial_id


@dataclass(frozen=True)
class ExtensionPlace:
    """Where the results of an extension are kept."""

    checkpoint: Path
    """Folder that holds, or will hold, `final` with the extended model."""
    record: Path
    """Parquet file with its row; the extension is done once it exists."""
    sweep: Store | None
    """The sweep that the extension belongs to; None outside a sweep."""


def extension_place(source: Path, source_id: str, extension: TrialConfig, out: Path | None) -> ExtensionPlace:
    """Where an extension goes.

    Args:
        source: the final checkpoint that it starts from.
        source_id: id of the trial that it starts from.
        extension: its config.
        out: folder in which the checkpoint gets a folder of its own; None: next to the source, in the source's sweep if it has one.
    """
    home = home_of(source, source_id)
    if out is None and home.sweep is not None:
        store = home.sweep
        return ExtensionPlace(store.checkpoints / extension.id, store.extensions / f"{extension.id}.parquet", store)
    folder = (home.folder.parent if out is None else out.absolute()) / extension.id
    return ExtensionPlace(folder, folder / EXTENSION_FILE, None)
