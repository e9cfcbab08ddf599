"""Damage to files that somebody else has written: a description that can be printed, and what it does to a file; not a test."""

import contextlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

_DEEP = 100_000
SPARSE = 4 * 2**30
"""Bytes of a file that takes no room on the disk: nobody may read it whole."""
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**400,
    0.5,
    -0.0,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "0",
    "nan",
    "a" * 5000,
    "../../../precious",
    "/etc/passwd",
    "\x1b[2J\x07",
    "a\nb",
    "\u202e",
    "\ud800",
    "\0",
    "{}",
    "[1",
    "$x$",
    "<script>",
    [],
    {},
    [[]],
    [None],
    [1, "a"],
    {"a": 1},
    {"": None},
    ["a"] * 1000,
    1e7,
)


@dataclass(frozen=True)
class Damage:
    """What happens to one file."""

    file: str
    """Relative to the sandbox."""
    how: str
    where: int
    """A place, taken modulo how many there are."""
    value: Any = None


def prepare(here: Path) -> None:
    """Things that are no ordinary files, for command lines that name them."""
    os.mkfifo(here / "pipe")
    (here / "loop").symlink_to("loop")
    (here / "dangling").symlink_to("nowhere/at/all")
    (here / "empty").touch()
    (here / "bits.bin").write_bytes(random.Random(0).randbytes(5000))
    _sparse(here / "sparse.json")


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, SPARSE)


# Any file


def _replaced(make: Callable[[Path], None]) -> Callable[[Path, int, Any], None]:
    def change(path: Path, _where: int, _value: Any) -> None:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        make(path)

    return change


def _bytes(change: Callable[[bytes, int], bytes]) -> Callable[[Path, int, Any], None]:
    def apply(path: Path, where: int, _value: Any) -> None:
        content = path.read_bytes()
        path.write_bytes(change(content, where % max(1, len(content))))

    return apply


def _flip(content: bytes, where: int) -> bytes:
    generator, flipped = random.Random(where), bytearray(content)
    for place in {where, *(generator.randrange(max(1, len(content))) for _ in range(where % 4))}:
        if place < len(flipped):
            flipped[place] ^= 1 << generator.randrange(8)
    return bytes(flipped)


ANY = {
    "removed": _replaced(lambda path: None),
    "empty": _replaced(Path.touch),
    "folder": _replaced(Path.mkdir),
    "pipe": _replaced(os.mkfifo),
    "loop": _replaced(lambda path: path.symlink_to(path.name)),
    "dangling": _replaced(lambda path: path.symlink_to("nowhere")),
    "device": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "sparse": _replaced(_sparse),
    "cut": _bytes(lambda content, where: content[:where]),
    "flipped": _bytes(_flip),
    "NULs": _bytes(lambda content, where: content[:where] + bytes(20) + content[where + 20 :]),
    "inserted": _bytes(lambda content, where: content[:where] + b'\xff\xfe{["\x1b' + content[where:]),
    "twice": _bytes(lambda content, where: content + content),
    "noise": _bytes(lambda content, where: random.Random(where).randbytes(where % 3000)),
}


# JSON


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every place inside a JSON value, as its container and the key or index; long lists of numbers count little."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 20)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        _places(value[key], found)
    return found


def _json(change: Callable[[Any, Any, Any], Any]) -> Callable[[Path, int, Any], None]:
    def apply(path: Path, where: int, value: Any) -> None:
        text = path.read_text()
        lines = path.suffix == ".jsonl"
        contents = [json.loads(line) for line in text.splitlines()] if lines else [json.loads(text)]
        places = _places(contents, [])
        change(*places[where % len(places)], value)
        path.write_text("\n".join(map(json.dumps, contents)) if contents else "")

    return apply


def _rename(container: Any, key: Any, value: Any) -> None:
    if isinstance(container, dict):
        container[str(value)[:50]] = container.pop(key)
    else:
        container.append(container[key])


def _nest(container: Any, key: Any, value: Any) -> None:
    container[key] = [container[key]] if isinstance(value, list) else {"a": container[key]}


def _deep(path: Path, where: int, _value: Any) -> None:
    """Deeply nested at some place; written as text, since no JSON library would."""
    content = json.loads(path.read_text().splitlines()[0] if path.suffix == ".jsonl" else path.read_text())
    whole = [content]
    places = _places(whole, [])
    container, key = places[where % len(places)]
    container[key] = "@deep@"
    opened, closed = (("[", "]"), ('{"a":', "}"))[where % 2]
    path.write_text(json.dumps(whole[0]).replace('"@deep@"', opened * _DEEP + "1" + closed * _DEEP))


JSON = ANY | {
    "set": _json(lambda container, key, value: container.__setitem__(key, value)),
    "deleted": _json(lambda container, key, _: container.__delitem__(key)),
    "renamed": _json(_rename),
    "nested": _json(_nest),
    "deep": _deep,
}


# Parquet


def _table(change: Callable[[pa.Table, int, Any], pa.Table]) -> Callable[[Path, int, Any], None]:
    def apply(path: Path, where: int, value: Any) -> None:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        pq.write_table(change(table, where, value), path)

    return apply


def _column(table: pa.Table, where: int, value: Any) -> pa.Table:
    """One column, or one cell of it, with another value as far as its type allows."""
    place = where % table.num_columns
    field = table.schema.field(place)
    filled: Any = [value] * table.num_rows
    if where % 3 == 0 and table.num_rows:
        filled = [*table.column(place).to_pylist()[:-1], value]
    for cast in (lambda v: v, str, float, int, lambda v: [v]):
        try:
            column = pa.array([None if v is None else cast(v) for v in filled], field.type)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            continue
        return table.set_column(place, field.with_nullable(True) if column.null_count else field, column)
    return table


def _another_type(table: pa.Table, where: int, value: Any) -> pa.Table:
    place, types = where % table.num_columns, (pa.string(), pa.int32(), pa.float32(), pa.binary(), pa.list_(pa.int64()), pa.bool_())
    kind = types[where // table.num_columns % len(types)]
    return table.set_column(place, pa.field(table.column_names[place], kind), pa.nulls(table.num_rows, kind))


def _renamed(table: pa.Table, where: int, _value: Any) -> pa.Table:
    names = list(table.column_names)
    names[where % len(names)] += "x"
    return table.rename_columns(names)


def _with_version(table: pa.Table, _where: int, value: Any) -> pa.Table:
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"schema_version": str(value)[:99].encode(errors="replace")})


PARQUET = ANY | {
    "values": _table(_column),
    "another type": _table(_another_type),
    "column dropped": _table(lambda table, where, _: table.drop_columns(table.column_names[where % table.num_columns])),
    "column renamed": _table(_renamed),
    "no rows": _table(lambda table, *_: table.slice(0, 0)),
    "rows twice": _table(lambda table, *_: pa.concat_tables([table, table])),
    "version": _table(_with_version),
    "no metadata": _table(lambda table, *_: table.replace_schema_metadata(None)),
}


# safetensors, NumPy and plain text


def _header(change: Callable[[Any, int, Any], Any]) -> Callable[[Path, int, Any], None]:
    def apply(path: Path, where: int, value: Any) -> None:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        text = json.dumps(change(json.loads(content[8 : 8 + length]), where, value)).encode(errors="replace")
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return apply


def _set_inside(header: Any, where: int, value: Any) -> Any:
    places = _places([header], [])
    container, key = places[1:][where % (len(places) - 1)]
    container[key] = value
    return header


def _other_dtype(header: Any, where: int, _value: Any) -> Any:
    dtype = ("F64", "I8", "BF16", "Q9")[where % 4]
    return {name: one | {"dtype": dtype} if isinstance(one, dict) else one for name, one in header.items()}


def _length(content: bytes, where: int) -> bytes:
    return struct.pack("<Q", (0, 1, 2**63, 2**40, len(content), 10**8)[where % 6]) + content[8:]


TENSORS = ANY | {
    "header": _header(_set_inside),
    "header's length": _bytes(_length),
    "no tensors": _header(lambda *_: {}),
    "other dtype": _header(_other_dtype),
}


def _array(path: Path, where: int, value: Any) -> None:
    content = np.load(path, allow_pickle=False)
    changed = (
        content[:0],
        content[::-1],
        content[: len(content) // 2],
        content * -1 if content.dtype.kind == "i" else content,
        content.astype(str),
        np.zeros((3, 3)),
    )
    made = changed[where % len(changed)]
    if isinstance(value, int | float) and content.dtype.kind == "i" and abs(value) < 2**62 and value == value:
        made = np.full_like(content, int(value))
    np.save(path, made, allow_pickle=False)


def _pickled(path: Path, _where: int, _value: Any) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


ARRAY = ANY | {"array": _array, "pickled": _pickled}


def _word(path: Path, where: int, value: Any) -> None:
    """One word of a text replaced by a value."""
    words = path.read_text().split(" ")
    words[where % len(words)] = value if isinstance(value, str) else json.dumps(value)
    path.write_text(" ".join(words), errors="replace")


def _line(path: Path, where: int, _value: Any) -> None:
    lines = path.read_text().split("\n")
    lines.insert(where % len(lines), lines[where // 2 % len(lines)])
    path.write_text("\n".join(lines))


TEXT = ANY | {"word": _word, "line twice": _line}

_KINDS = {
    ".json": JSON,
    ".jsonl": JSON,
    ".parquet": PARQUET,
    ".safetensors": TENSORS,
    ".npy": ARRAY,
    ".yaml": TEXT,
    ".txt": TEXT,
    ".csv": TEXT,
}


def damages(file: str) -> st.SearchStrategy[Damage]:
    """Damage to a file of which its suffix tells what it is."""
    kind = _KINDS.get(Path(file).suffix, ANY)
    special = [how for how in kind if how not in ANY]
    how = st.one_of(*[st.sampled_from(special)] * 3, st.sampled_from(list(ANY))) if special else st.sampled_from(list(ANY))
    return st.builds(Damage, st.just(file), how, st.integers(0, 10**6), st.sampled_from(VALUES))


def apply(damage: Damage, root: Path) -> None:
    """Damage a file of the sandbox. One that an earlier damage has made unreadable for this one is left as it is."""
    path = root / damage.file
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**26:
        return
    with contextlib.suppress(Exception):  # whatever damaged content makes of the libraries that are used here
        _KINDS.get(path.suffix, ANY).get(damage.how, lambda *_: None)(path, damage.where, damage.value)
