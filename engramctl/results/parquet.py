"""Tables as Parquet files: written whole or not at all, read many at a time, checked against their schema."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engram.errors import UserError
from engram.files import write_atomically
from engram.foreign_files import read_bytes
from engramctl.results.schema.columns import MAY_LACK, SCHEMA_VERSION

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""A table as a mapping of columns, all of the same length."""

_IDENTITY = "identity"
_READERS = 4
"""Threads that read files in parallel."""


def as_table(schema: pa.Schema, data: Columns, what: str) -> pa.Table:
    """Columns as a table; ValueError when they are not exactly those of the schema, or a required value is missing."""
    names = set(schema.names)
    if data.keys() != names:
        raise ValueError(f"{what}: unknown columns {_names(data.keys() - names)}, missing columns {_names(names - data.keys())}")
    table = pa.Table.from_pydict(dict(data), schema=schema)
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"{what}: column {field.name} must have a value")
    return table


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def write_table(path: Path, table: pa.Table, identity: str | None = None) -> None:
    """Write a table atomically, creating its folder if need be; OSError when the disk refuses.

    Args:
        path: of the file.
        table: what it holds.
        identity: what the numbers are of (`fingerprints.identity`), kept beside them and not in a column.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    # Codecs and dictionaries make a single row larger, and four times slower to read.
    small = table.num_rows == 1
    with pq.ParquetWriter(buffer, table.schema, compression="none" if small else "zstd", use_dictionary=not small) as writer:
        writer.write_table(table)
        if identity is not None:
            writer.add_key_value_metadata({_IDENTITY: identity})
    write_atomically(path, buffer.getvalue())


def read_identity(path: Path) -> str | None:
    """What the numbers in a file are of; None when there is no such file, it can't be read, or an earlier version wrote it."""
    try:
        kept: bytes | None = (pq.read_metadata(path).metadata or {}).get(_IDENTITY.encode())
    except (pa.ArrowException, OSError):
        return None
    return None if kept is None else kept.decode()


def write_row(path: Path, schema: pa.Schema, row: Mapping[str, Any], identity: str | None = None) -> None:
    """Write a single row as a file of its own; raises like `as_table` and `write_table`."""
    write_table(path, as_table(schema, {name: [value] for name, value in row.items()}, path.name), identity)


def read_row(path: Path, schema: pa.Schema) -> dict[str, Any] | None:
    """The row that `write_row` wrote, or None if there is none; UserError like `read_table`."""
    try:
        row: dict[str, Any] = read_table(path, schema, schema.names).to_pylist()[0]
    except FileNotFoundError:
        return None
    return row


def table_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder, in order. Hidden ones are none of ours: a Mac leaves shadows, `._NAME`, on other disks."""
    return sorted(folder.glob("[!.]*.parquet"))


def require_own_name(path: Path, table: pa.Table) -> None:
    """UserError when a file is not named after the trial that its rows are of: it would be counted beside the original."""
    ids = {str(found) for found in table.column("trial_id").to_pylist()}
    if table.num_rows != 1 or ids != {path.stem}:
        of = f"trial {', '.join(sorted(ids)[:2])!r}" if ids else "no trial"
        raise UserError(f"{path} holds {of}, so its name should be ID.parquet: if it is a copy, delete it")


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Some columns of a file; FileNotFoundError when there is none, UserError when it is damaged or not of this schema."""
    try:
        # Read the file in one go: Arrow itself would read once per column, which takes most of the time of a thousand small files.
        file = pq.ParquetFile(pa.BufferReader(read_bytes(path)))
        metadata = file.metadata.metadata or {}
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        raise _damaged(path) from None
    with file:
        require_version(path, metadata.get(b"schema_version", b"").decode(errors="replace") or None)
        # Parsing a file's schema takes a fifth of the time of reading it; nearly always its text is the one that this Arrow writes.
        missing: frozenset[str] = frozenset()
        if metadata.get(b"ARROW:schema") != _written(schema) and not file.schema_arrow.equals(schema):
            missing = MAY_LACK & set(schema.names) - set(file.schema_arrow.names)
            if not file.schema_arrow.equals(pa.schema(field for field in schema if field.name not in missing)):
                raise UserError(f"{path} does not have the columns of schema version {SCHEMA_VERSION}; it was not written by engramctl")
        try:
            # At most a few thousand rows: threads would cost more than they save.
            table = file.read(columns=[name for name in columns if name not in missing], use_threads=False)
        except (pa.ArrowException, OSError):
            raise _damaged(path) from None
    # The text that says what the file has is whole, but what it describes may not be: a flipped bit in the name of a column, or its type
    there = {field.name: field.type for field in table.schema}
    if len(there) != table.num_columns or any(there.get(name) != schema.field(name).type for name in columns if name not in missing):
        raise _damaged(path)
    for name in missing:
        table = table.append_column(schema.field(name), pa.nulls(file.metadata.num_rows, schema.field(name).type))
    return table.select(columns)


def read_tables(paths: Sequence[Path], schema: pa.Schema, columns: Sequence[str]) -> list[pa.Table | None]:
    """`read_table` of every path, in order; None where there is no file."""

    def read(path: Path) -> pa.Table | None:
        try:
            return read_table(path, schema, columns)
        except FileNotFoundError:
            return None

    if len(paths) < 2:
        return [read(path) for path in paths]
    # Reading a small file is mostly waiting for it, all the more in a cluster's shared folder.
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, paths))


@cache
def _written(schema: pa.Schema) -> bytes:
    """A schema in the form in which Arrow writes it into a Parquet file."""
    buffer = BytesIO()
    pq.write_table(schema.empty_table(), buffer)
    written: bytes = pq.ParquetFile(buffer).metadata.metadata[b"ARROW:schema"]
    return written


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} can't be read as Parquet: it is damaged; delete it and run the sweep again, other trials are kept")


def require_version(path: Path, version: object) -> None:
    """UserError when a file has another schema version."""
    if str(version) != str(SCHEMA_VERSION):
        found = f"schema version {version}" if version is not None else "no schema version"
        raise UserError(f"{path} has {found}; this engramctl reads version {SCHEMA_VERSION}")
