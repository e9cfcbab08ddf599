"""What a column of a table is, and the schema version, which all tables share.

Writers, readers, Parquet metadata and docs/results.md all follow the tuples of columns in the modules next to this one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 5
"""Goes up when a column is added, removed or renamed, or changes its type, unit or meaning."""
MAY_LACK = frozenset({"overlap"})
"""Nullable columns that came without a new version: files that were written before are read as if they had nulls there."""

TEXT, INT, REAL = pa.string(), pa.int64(), pa.float64()


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: pa.DataType
    unit: str
    """Empty for text and for pure numbers."""
    meaning: str
    nullable: bool = False


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """Arrow schema of a table, with schema version, units and meanings in its metadata."""
    fields = [pa.field(c.name, c.type, nullable=c.nullable, metadata={"unit": c.unit, "meaning": c.meaning}) for c in columns]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})
