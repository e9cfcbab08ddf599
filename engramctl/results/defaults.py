"""Default sweep and results folder, and how a command to type next is written."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

DEFAULT_SWEEP = "allocation"
DEFAULT_RESULTS = Path("results")


def command(name: str, sweep: str, results: Path, *more: str) -> str:
    """A command to type next, quoted for a shell, with --results unless it is the default."""
    return as_typed([name, *(["--", sweep] if sweep.startswith("-") else [sweep])], results, more)


def as_typed(words: Sequence[str], results: Path, more: Iterable[str] = ()) -> str:
    """The same for a command of which all words but --results are known."""
    options = [] if results == DEFAULT_RESULTS else ["--results", str(results)]
    first, rest = (words[: words.index("--")], words[words.index("--") :]) if "--" in words else (words, [])
    return f"`{shlex.join(['engramctl', *first, *options, *more, *rest])}`"
