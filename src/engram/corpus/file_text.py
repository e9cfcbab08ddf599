"""The `files:GLOB` corpus: text files, JSON lines and Parquet tables, plain or compressed."""

import glob
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from engram.errors import UserError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
"""Files with one JSON object per line."""
PARQUET_BATCH_ROWS = 1024


def matching_files(pattern: str) -> list[Path]:
    """Files that match, sorted by path, each only once however many links lead to it; UserError when there are none.

    `**` stands for any depth of folders and `~` for the home folder.
    """
    expanded = os.path.expanduser(pattern)
    by_file: dict[str, Path] = {}
    for name in sorted(glob.glob(expanded, recursive=True)):
        if os.path.isfile(name):
            by_file.setdefault(os.path.realpath(name), Path(name))
    if not by_file:
        hint = f"; it is a folder, try files:{os.path.join(pattern, '**')}" if os.path.isdir(expanded) else ""
        raise UserError(f"files:{pattern} matches no file{hint}")
    return list(by_file.values())


def file_documents(path: Path, text_column: str) -> Iterator[str]:
    """Documents of one file: one per row of JSON lines (.jsonl .ndjson .json) or Parquet, otherwise the whole file.

    A row whose text is null gives the empty string. Raises UserError that names the file and the place of the mistake.
    """
    compressed = path.suffix.lower() in COMPRESSIONS
    suffix = (path.with_suffix("") if compressed else path).suffix.lower()
    try:
        if path.suffix.lower() == ".parquet":
            yield from _parquet_rows(path, text_column)
        else:
            with _open(path) as file:
                yield from _json_rows(file, path, text_column) if suffix in JSON_SUFFIXES else [_whole_text(file, path)]
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error


def _open(path: Path) -> BinaryIO:
    """The file's bytes, decompressed. Arrow's reader notices a file that was cut off, which zstandard's does not."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression=compression), buffer_size=1 << 20)


def _whole_text(file: BinaryIO, path: Path) -> str:
    try:
        return file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8") from error


def _json_rows(file: BinaryIO, path: Path, column: str) -> Iterator[str]:
    offset = 0
    for number, line in enumerate(file, start=1):
        try:
            decoded = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: byte {offset + error.start} (line {number}) is not UTF-8") from error
        offset += len(line)
        if not decoded.strip():
            continue
        place = f"{path}: line {number}"
        try:
            row = json.loads(decoded)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{place} is not a JSON object but {type(row).__name__}")
        if column not in row:
            raise missing_column(place, column, list(row))
        yield row_text(row[column], place, column)


def _parquet_rows(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            if column not in table.schema_arrow.names:
                raise missing_column(str(path), column, table.schema_arrow.names)
            row = 0
            for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=[column]):
                for value in batch.column(0):
                    row += 1
                    try:
                        text = value.as_py()
                    except UnicodeDecodeError as error:
                        raise UserError(f"{path}: row {row} is not UTF-8") from error
                    yield row_text(text, f"{path}: row {row}", column)
    except pa.ArrowException as error:
        raise UserError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from error


def missing_column(place: str, column: str, columns: list[str]) -> UserError:
    """The error for a table without the text column."""
    return UserError(f"{place} has no column {column!r}; it has {', '.join(map(repr, columns)) or 'none'}")


def row_text(value: Any, place: str, column: str) -> str:
    """The text of a row's cell, "" for null; UserError when it is not text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{place}: column {column!r} holds {type(value).__name__}; it must hold text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise UserError(f"{place}: column {column!r} has half a surrogate pair at character {error.start}") from error
    return value
