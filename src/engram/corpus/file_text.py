"""The `files:GLOB` corpus: text files, JSON lines and Parquet tables, plain or compressed."""

import bz2
import glob
import io
import json
import lzma
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from engram.corpus.zstd import open_zstd
from engram.errors import UserError
from engram.foreign_files import parse_json
from engram.tokenizer.hub import short_cause

COMPRESSIONS = frozenset({".gz", ".bz2", ".xz", ".zst"})
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
"""Files with one JSON object per line."""
_ROW_EACH = f"files {' '.join(sorted(JSON_SUFFIXES))} hold an object in every line"
PARQUET_BATCH_ROWS = 1024
_UNREADABLE = {
    **dict.fromkeys((".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".zip", ".7z", ".rar"), "an archive of files; unpack it"),
    **dict.fromkeys(
        (".arrow", ".feather", ".ipc", ".orc", ".avro"), "a table of another kind than Parquet; convert it to Parquet or JSON lines"
    ),
    **dict.fromkeys((".csv", ".tsv", ".xls", ".xlsx", ".ods"), "a table of cells; convert it to Parquet or JSON lines"),
    **dict.fromkeys(
        (".doc", ".docx", ".odt", ".rtf", ".pdf", ".ps", ".epub", ".mobi", ".djvu"), "a document with its layout; convert it to plain text"
    ),
    **dict.fromkeys(
        (".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".safetensors", ".gguf", ".h5", ".hdf5", ".sqlite", ".db"),
        "data of a program and no text",
    ),
    **dict.fromkeys((".lz4", ".lzma", ".br", ".sz", ".z"), "compressed in another way than .gz, .bz2, .xz or .zst; decompress it"),
}
_SIGNATURES = {
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ\x00": "xz data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"PAR1": "a Parquet table",
    b"ARROW1": "an Arrow table",
    b"%PDF-": "a PDF document",
}
"""How files begin whose names may not say what they are."""
_MAGIC = re.compile(r"[*?[]")
_KERNELS = ("/proc/", "/sys/", "/dev/")
_MAX_FILES = 1_000_000
_BOM = b"\xef\xbb\xbf"


def matching_files(pattern: str) -> list[Path]:
    """Files that match, sorted by path, each only once however many links lead to it; UserError when there are none.

    `**` stands for any depth of folders and `~` for the home folder. A pattern that is the path of a file is that file, whatever its
    characters.
    """
    expanded = os.path.expanduser(pattern)
    if os.path.isfile(expanded):
        _refuse_kernels(os.path.realpath(expanded), pattern)
        return [Path(expanded)]
    _refuse_kernels(os.path.realpath(_MAGIC.split(expanded, maxsplit=1)[0] or "."), pattern)
    names: list[str] = []
    for name in glob.iglob(expanded, recursive=True):
        if os.path.isfile(name):
            _refuse_kernels(os.path.realpath(name), pattern)
            names.append(name)
            if len(names) > _MAX_FILES:
                raise UserError(f"files:{pattern} matches more than {_MAX_FILES:,} files; put the text into fewer and larger ones")
    by_file: dict[str, Path] = {}
    for name in sorted(names):
        by_file.setdefault(os.path.realpath(name), Path(name))
    if not by_file:
        hint = f"; it is a folder, try files:{os.path.join(pattern, '**')}" if os.path.isdir(expanded) else _bracket_hint(expanded)
        raise UserError(f"files:{pattern} matches no file{hint}")
    return list(by_file.values())


def _refuse_kernels(path: str, pattern: str) -> None:
    """UserError for files of the kernel: some never end, others wait for ever, and none is anybody's text."""
    if f"{path}/".startswith(_KERNELS) and not path.startswith("/dev/shm/"):
        raise UserError(f"files:{pattern} matches {path}, which is the kernel's and no text")


def _bracket_hint(pattern: str) -> str:
    """A hint when a folder or file with brackets in its name is there under that name."""
    parts = Path(pattern).parts
    for count in range(len(parts), 0, -1):
        known = os.path.join(*parts[:count])
        if "[" in parts[count - 1] and os.path.exists(known):
            return f"; brackets stand for one of the characters in them: write [ as [[], try files:{pattern.replace('[', '[[]')}"
    return ""


def file_documents(path: Path, text_column: str) -> Iterator[str]:
    """Documents of one file: one per row of JSON lines (.jsonl .ndjson .json) or Parquet, otherwise the whole file.

    A row whose text is null gives the empty string; a byte order mark is no part of a text. Raises UserError that names the file and the
    place of the mistake, also for a file that is not text.
    """
    compressed = path.suffix.lower() in COMPRESSIONS
    suffix = (path.with_suffix("") if compressed else path).suffix.lower()
    if (what := _UNREADABLE.get(suffix) or _UNREADABLE.get(path.suffix.lower())) is not None:
        raise UserError(f"{path} can't be read: {suffix} is {what}")
    try:
        if suffix == ".parquet":
            if compressed:
                raise UserError(f"{path} can't be read: decompress it, Parquet compresses by itself")
            yield from _parquet_rows(path, text_column)
        else:
            with _open(path) as file:
                _check_text(file, path)
                yield from _json_rows(file, path, text_column) if suffix in JSON_SUFFIXES else [_whole_text(file, path)]
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or short_cause(error)}") from error


def _open(path: Path) -> io.BufferedReader:
    """The file's bytes, decompressed. A file that was cut off is an error when its end is read."""
    compression = path.suffix.lower()
    if compression in (".bz2", ".xz"):
        stream: Any = bz2.open(path) if compression == ".bz2" else lzma.open(path)  # noqa: SIM115  # closed by the caller
        return io.BufferedReader(stream, buffer_size=1 << 20)
    if compression == ".zst":
        return open_zstd(path)
    if compression == ".gz":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="gzip"), buffer_size=1 << 20)
    return path.open("rb")


def _check_text(file: io.BufferedReader, path: Path) -> None:
    """UserError when the file's beginning, after decompression, is not that of text; a byte order mark is read over."""
    head = file.peek(1 << 13)
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            raise UserError(f"{path} can't be read: it is not text but {what}")
    if head[257:262] == b"ustar":
        raise UserError(f"{path} can't be read: it is not text but an archive of files; unpack it")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} can't be read: it is UTF-16 or UTF-32; convert it to UTF-8")
    if head.startswith(_BOM):
        file.read(len(_BOM))


def _whole_text(file: BinaryIO, path: Path) -> str:
    content = file.read()
    if (place := content.find(b"\0")) >= 0:
        raise UserError(f"{path} can't be read: it is not text, byte {place} is 0")
    try:
        return content.decode("utf-8")
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
            row = parse_json(decoded)
        except json.JSONDecodeError as error:
            where = f"{error.msg.removesuffix(' starting at')}, column {error.pos + 1}"
            raise UserError(f"{place} is not JSON ({where}); {_ROW_EACH}") from error
        except RecursionError as error:
            raise UserError(f"{place} is not JSON that can be read: it is nested too deeply") from error
        except ValueError as error:
            raise UserError(f"{place}: {str(error).partition(';')[0]}") from error
        if not isinstance(row, dict):
            raise UserError(f"{place} is not a JSON object but {type(row).__name__}; {_ROW_EACH}")
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
            if table.schema_arrow.names.count(column) > 1:
                raise UserError(f"{path} has several columns {column!r}")
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
    """The text of a row's cell without a byte order mark, "" for null; UserError when it is not text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{place}: column {column!r} holds {type(value).__name__}; it must hold text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise UserError(f"{place}: column {column!r} has half a surrogate pair at character {error.start}") from error
    return value.removeprefix("\ufeff")
