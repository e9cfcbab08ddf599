"""Where results lie when nobody says otherwise, and the command to type next."""

from pathlib import Path

DEFAULT_SWEEP = "allocation"
DEFAULT_RESULTS = Path("results")


def command(name: str, sweep: str, results: Path) -> str:
    """A command to type next, with --results where it is not the default."""
    return f"`engramctl {name} {sweep}{'' if results == DEFAULT_RESULTS else f' --results {results}'}`"
