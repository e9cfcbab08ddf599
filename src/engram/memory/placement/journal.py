"""What rows were at the last checkpoint: saved to a file before they change, restored when training continues from that checkpoint.

Rows are written in place, at any time between two checkpoints. A process that is killed leaves rows of several steps in the table; the
journal turns every row that changed since the checkpoint back into what it was. The name of a journal says which step it goes back to:

- `<table>.undo-<k>` exists, and the last checkpoint is of step k: rows may have changed since, and are restored.
- none for k: the table is as it was at step k. An older journal belongs to a checkpoint that has since been replaced.
"""

import json
import os
from pathlib import Path

from engram.errors import UserError
from engram.memory.placement.engine import RowEngine

_HEADER_BYTES = 512
_MAGIC = "engram table journal"


class Journal:
    """The journals of one table file.

    Args:
        engine: of the table.
        table: path of its file.
    """

    def __init__(self, engine: RowEngine, table: Path) -> None:
        self.engine, self.table = engine, table
        self._file = -1

    def recover(self, step: int) -> int:
        """Bring the table back to what it was at the checkpoint of `step`; returns the number of rows restored.

        Raises UserError when the table is later than that.
        """
        there = self._there()
        if later := [at for at in there if at > step]:
            raise UserError(
                f"table file {self.table} is of a checkpoint at step {max(later)}, but the last checkpoint is of step {step};"
                f" remove {self.table.parent.parent} to train the trial from its start"
            )
        if step not in there:
            return 0
        path = there[step]
        file = os.open(path, os.O_RDONLY)
        try:
            self._check_header(path, os.read(file, _HEADER_BYTES), step)
            return self.engine.undo(file, _HEADER_BYTES)
        finally:
            os.close(file)

    def begin(self, step: int) -> None:
        """Start the journal of the checkpoint of `step`, as of which the table is complete on disk, and drop all others."""
        path = self._path(step)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        try:
            os.write(file, self._header(step))
            os.fsync(file)
            others = [old for at, old in self._there().items() if at != step]
            temporary.rename(path)  # replaces one of the same step, which has been undone
            self._sync_folder()
        except OSError:
            os.close(file)
            temporary.unlink(missing_ok=True)
            raise
        for old in others:
            old.unlink(missing_ok=True)
        self.engine.journal(file, step)
        self.close()
        self._file = file

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _path(self, step: int) -> Path:
        return self.table.with_name(f"{self.table.name}.undo-{step}")

    def _there(self) -> dict[int, Path]:
        found = self.table.parent.glob(f"{self.table.name}.undo-*")
        return {int(path.name.rpartition("-")[2]): path for path in found if path.name.rpartition("-")[2].isdigit()}

    def _header(self, step: int) -> bytes:
        content = {"magic": _MAGIC, "salt": self.engine.layout.salt, "payload": self.engine.layout.payload, "step": step}
        return json.dumps(content).encode().ljust(_HEADER_BYTES)

    def _check_header(self, path: Path, head: bytes, step: int) -> None:
        if head != self._header(step):
            raise UserError(f"journal {path} does not belong to table file {self.table}")

    def _sync_folder(self) -> None:
        folder = os.open(self.table.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
