"""Findings of `engramctl analyze` as Parquet: one file per model and kind, which a new finding of that kind replaces."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from engram.errors import UserError
from engramctl.results.parquet import Columns, as_table, read_identity, read_table, write_table
from engramctl.results.schema.analysis import SCHEMAS

_AGAIN = "delete it, or analyse the model again"


class AnalysisStore:
    """`analysis/` in the folder of a sweep or a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "analysis"
        self.figures = folder / "figures"

    def path(self, name: str, kind: str) -> Path:
        """The file of a table; `name` is the model's trial id, or two of them joined by a dot."""
        return self.folder / f"{name}.{kind}.parquet"

    def identity(self, name: str, kind: str) -> str | None:
        """What a table is of (`fingerprints.identity`); None when there is none that says so."""
        return read_identity(self.path(name, kind))

    def write(self, name: str, kind: str, columns: Columns, identity: str | None = None) -> Path:
        """Write a table and what it is of.

        Raises UserError when the folder can't be written, ValueError when the columns are not those of the schema.
        """
        path = self.path(name, kind)
        table = as_table(SCHEMAS[kind], columns, kind)
        try:
            write_table(path, table, identity)
        except OSError as problem:
            raise UserError(f"{path} can't be written: {problem.strerror or problem}") from None
        return path

    def read(self, name: str, kind: str) -> pd.DataFrame:
        """A table; FileNotFoundError when there is none, UserError when it can't be read."""
        return read_table(self.path(name, kind), SCHEMAS[kind], SCHEMAS[kind].names).to_pandas()

    @contextmanager
    def values_of(self, name: str, kind: str) -> Iterator[None]:
        """For a block that shows a table: UserError naming the file when values in it are such that this can't be done."""
        try:
            yield
        except UserError:
            raise
        except FileNotFoundError as problem:
            raise UserError(f"{self.path(name, kind)} is only half of a finding ({problem.filename} is missing); {_AGAIN}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as problem:
            cause = f"{type(problem).__name__}: {problem}"
            raise UserError(f"{self.path(name, kind)} has values that `engramctl analyze` does not write ({cause}); {_AGAIN}") from None

    def names(self, kind: str) -> list[str]:
        """Names of the models that have a table of a kind, sorted."""
        return sorted(path.name.removesuffix(f".{kind}.parquet") for path in self.folder.glob(f"[!.]*.{kind}.parquet"))
