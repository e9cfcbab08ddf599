"""Parsing of option values: comma-separated lists, numbers, whole numbers, files."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engram.errors import FieldError, UserError
from engram.foreign_files import read_text, require_regular

_MOST_DIGITS = 18


def items(values: Sequence[str] | None) -> list[str]:
    """The values of an option that may be repeated, and whose values may be comma-separated lists."""
    return [item.strip() for value in values or [] for item in value.split(",") if item.strip()]


def numbers(option: str, values: Sequence[str] | None) -> list[float]:
    """The same, as numbers; UserError naming the option and what is not a number."""
    try:
        found = [float(item) for item in items(values)]
    except ValueError as problem:
        raise UserError(f"{option}: {str(problem).split(': ')[-1]} is not a number; numbers are separated by commas") from None
    for number in found:
        if not math.isfinite(number):
            raise UserError(f"{option}: {number} is not a finite number")
    return found


def whole_numbers(option: str, values: Sequence[str] | None) -> list[int]:
    """The same, as whole numbers from 0 up; UserError naming the option and what is not one."""
    for item in items(values):
        if not item.isdecimal() or len(item) > _MOST_DIGITS:
            raise UserError(
                f"{option}: {item[:60]} is not a whole number of at most {_MOST_DIGITS} digits; numbers are separated by commas"
            )
    return [int(item) for item in items(values)]


def one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    """The value; UserError naming the option and what is allowed."""
    if value not in allowed:
        raise UserError(f"{option} {value}: {', '.join(allowed[:-1])} or {allowed[-1]} is expected")
    return value


def existing(option: str, path: Path | None) -> Path | None:
    """The path made absolute; UserError naming the option when it doesn't exist."""
    if path is None:
        return None
    if not path.exists():
        raise UserError(f"{option} {path} does not exist")
    return path.absolute()


def existing_file(option: str, path: Path | None) -> Path | None:
    """The same for a file that is read as a whole; UserError also when it is no plain file, or too large for that."""
    found = existing(option, path)
    if found is not None:
        try:
            require_regular(found)
        except OSError as problem:
            raise UserError(f"{option} {path} can't be read: {problem.strerror}") from None
    return found


def text_of(option: str, file: Path) -> str:
    """The text of a file; UserError naming the option when it can't be read or is not UTF-8."""
    try:
        return read_text(file)
    except OSError as problem:
        raise UserError(f"{option} {file} can't be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{option} {file} is not UTF-8 text") from None


def require_unicode(argument: str, text: str) -> None:
    """UserError for an argument whose bytes Python could not decode, which leaves surrogates in the text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{argument} {text!a} is not UTF-8") from None


@contextmanager
def fields_named(**names: str) -> Iterator[None]:
    """Rename library fields in errors to the options that set them: `fields_named(width="train_width")`."""
    try:
        yield
    except FieldError as problem:
        raise FieldError(names.get(problem.field, problem.field), problem.rest) from None
