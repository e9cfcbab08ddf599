"""Whether the disk has room for the models that a sweep keeps: asked before Ray starts."""

from collections.abc import Sequence
from pathlib import Path

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.training.checkpoints.room import final_bytes, free_bytes
from engramctl.present.format import counted


def room_note(folder: Path, trials: Sequence[TrialConfig]) -> str | None:
    """What there is to say about the disk before trials are trained; None if all their models fit.

    While they train somebody may make room, so only a disk that has none for even the smallest model is refused, with a UserError.
    """
    sizes, free = [final_bytes(trial) for trial in trials], free_bytes(folder)
    if sum(sizes) <= free:
        return None
    told = f"the {counted(len(sizes), 'model')} of the sweep take {_mega(sum(sizes))} in {folder}, {_mega(free)} are free there"
    if min(sizes) > free:
        raise UserError(f"the disk is full: {told}; make room, or choose another folder with --results")
    return f"{told}: some trials will fail; make room there, and they are kept"


def _mega(size: int) -> str:
    return f"{size / 1e6:,.3g} MB" if size < 1e9 else f"{size / 1e9:,.3g} GB"
