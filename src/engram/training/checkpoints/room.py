"""Whether a disk has room for what a trial will leave there: asked before it is trained, since afterwards it would be lost."""

import shutil
from pathlib import Path

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.memory.placement.formats import FORMATS
from engram.scaling.accounting import count_parameters

_WEIGHT_BYTES = 4


def final_bytes(trial: TrialConfig) -> int:
    """Bytes of the weights in a trial's final checkpoint, at the least: tables count as their rows are stored."""
    counts = count_parameters(trial.model)
    tables = counts.memory_tables * min(_WEIGHT_BYTES, FORMATS[trial.train.table_format].dtype.itemsize)
    return _WEIGHT_BYTES * (counts.p_total + counts.p_embedding - counts.memory_tables) + tables


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


def require_room(folder: Path, trial: TrialConfig) -> None:
    """UserError unless the disk has room for a trial's final checkpoint."""
    needed, free = final_bytes(trial), free_bytes(folder)
    if needed > free:
        raise UserError(f"the disk is full: weights of {needed / 1e6:,.3g} MB go to {folder}, {free / 1e6:,.3g} MB are free there")
