"""Spans of text to look at, such as named entities: read from a file, and located among tokens."""

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from engram.errors import UserError
from engram.foreign_files import read_bytes
from engram.tokenizer.plain import plain_encodings

_EXPECTED = '{"text": "...", "spans": [[start, end], ...]}'


@dataclass(frozen=True)
class SpannedText:
    """A document and the spans in it."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """First character of each span and the one after its last."""


@dataclass(frozen=True, eq=False)
class Probes:
    """The final token of every span."""

    documents: list[np.ndarray]
    """Token ids of each document, int64."""
    document: np.ndarray
    """Document of each probed token, int64 [N]."""
    position: np.ndarray
    """Its place in the document, int64 [N]."""


def read_spans(file: Path) -> list[SpannedText]:
    """Read JSON lines, a document each: `{"text": "...", "spans": [[start, end], ...]}`, offsets in characters (code points).

    Other keys and empty lines are ignored. Raises UserError that names the file and the line of whatever is wrong.
    """
    try:
        lines = read_bytes(file).removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as problem:
        raise UserError(f"spans file {file} can't be read: {problem.strerror or problem}") from None
    found = [_document(line, f"spans file {file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not any(document.spans for document in found):
        raise UserError(f"spans file {file} has no span; expected are lines {_EXPECTED}")
    return found


def _document(line: bytes, where: str) -> SpannedText:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, or not UTF-8
        raise UserError(f"{where} is not JSON; expected is {_EXPECTED}") from None
    text = value.get("text") if isinstance(value, dict) else None
    spans = value.get("spans") if isinstance(value, dict) else None
    if not isinstance(text, str) or not isinstance(spans, list):
        raise UserError(f"{where} needs a text and a list of spans; expected is {_EXPECTED}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{where}: the text has half a surrogate pair, which is no character")
    return SpannedText(text, tuple(_span(span, len(text), where) for span in spans))


def _span(span: Any, length: int, where: str) -> tuple[int, int]:
    if not isinstance(span, list) or len(span) != 2 or not all(type(offset) is int for offset in span):
        raise UserError(f"{where}: span {json.dumps(span)[:60]} is not [start, end] in characters")
    start, end = span
    if not 0 <= start < end <= length:
        raise UserError(f"{where}: span [{start}, {end}] is not inside its text of {length} characters, or is empty")
    return start, end


def probes(texts: Sequence[SpannedText], tokenizer: Tokenizer) -> Probes:
    """The token that holds the last character of each span; several spans that end in one token count once.

    Raises UserError when a span has no token, such as white space that the tokenizer drops.
    """
    encodings = plain_encodings(tokenizer, [text.text for text in texts])
    places = []
    for number, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
        starts, ends = _offsets(encoding.offsets)
        for start, end in text.spans:
            last = int(np.searchsorted(starts, end)) - 1  # the last token that starts before the end
            if last < 0 or ends[last] <= start:
                raise UserError(f"span [{start}, {end}] of text {number + 1} has no token of its own")
            places.append((number, last))
    document, position = np.unique(np.array(places, dtype=np.int64).reshape(-1, 2), axis=0).T
    return Probes([np.array(encoding.ids, dtype=np.int64) for encoding in encodings], document, position)


def tokens_of(spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Number of tokens that each span touches, int64 [spans], from the character offsets of all tokens."""
    starts, ends = _offsets(offsets)
    wanted = np.array(spans, dtype=np.int64).reshape(-1, 2)
    touched: np.ndarray = np.searchsorted(starts, wanted[:, 1]) - np.searchsorted(ends, wanted[:, 0], side="right")
    return touched


def _offsets(offsets: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    return starts, ends
