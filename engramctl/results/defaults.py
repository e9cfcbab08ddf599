"""Default sweep and results folder, and how a command to type next is written."""

from pathlib import Path

DEFAULT_SWEEP = "allocation"
DEFAULT_RESULTS = Path("results")


def command(name: str, sweep: str, results: Path) -> str:
    """A command to type next, with --results unless it is the default."""
    return f"`engramctl {name} {sweep}{'' if results == DEFAULT_RESULTS else f' --results {results}'}`"
