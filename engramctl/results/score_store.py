"""Scores as Parquet: one file per model, task and settings, and one for its items."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from engram.errors import UserError
from engramctl.results.parquet import Columns, as_table, read_identity, read_tables, table_files, write_table
from engramctl.results.schema.scores import EVAL_ITEM_SCHEMA, EVAL_SCHEMA

_NAME = re.compile(r"[0-9a-f]+\..+\.[0-9a-f]+\.parquet")
"""As `score_requests.ScoreJob.file_name` makes them."""


class ScoreStore:
    """`evals/` and `eval_items/` in the folder of a sweep or a checkpoint. A file in `evals/` exists only once both are complete."""

    def __init__(self, folder: Path) -> None:
        self.evals = folder / "evals"
        self.items = folder / "eval_items"

    def has(self, name: str, identity: str | None = None) -> bool:
        """Whether a score file exists, and is of `identity` if that is given."""
        return (self.evals / name).is_file() and identity in (None, read_identity(self.evals / name))

    def write(self, name: str, rows: Columns, items: Columns, identity: str | None = None) -> None:
        """Write the scores of a request and what they are of.

        Raises ValueError when the columns are not those of the schema, OSError when the disk refuses.
        """
        write_table(self.items / name, as_table(EVAL_ITEM_SCHEMA, items, "items"))
        write_table(self.evals / name, as_table(EVAL_SCHEMA, rows, "scores"), identity)

    def read(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """The scores in some files, or in all if None, one row per task and group; UserError when one can't be read."""
        paths = self._files() if names is None else [self.evals / name for name in names]
        there = [table for table in read_tables(paths, EVAL_SCHEMA, EVAL_SCHEMA.names) if table is not None]
        return pa.concat_tables([EVAL_SCHEMA.empty_table(), *there]).to_pandas()

    def _files(self) -> list[Path]:
        """All score files; UserError naming a copy, which would be counted beside the original."""
        paths = table_files(self.evals)
        for path in paths:
            if not _NAME.fullmatch(path.name):
                raise UserError(f"{path} is not named as scores are, TRIAL.TASK.SETTINGS.parquet: if it is a copy, delete it")
        return paths
