"""From what the library returns to the columns of a table."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from engramctl.analysis.columns import TABLES

if TYPE_CHECKING:
    from engram.analysis.intervals import Estimates
    from engramctl.parquet import Columns


def columns_of(kind: str, rows: Iterable[Mapping[str, Any]]) -> "Columns":
    """Rows as columns, in the order of the schema; NaN and infinity, which stand for no number, are null."""
    listed = list(rows)
    return {column.name: [_plain(row[column.name]) for row in listed] for column in TABLES[kind]}


def interval(name: str, estimates: "Estimates", *at: int) -> dict[str, Any]:
    """An estimate and its bounds, as columns of a row."""
    return {name: estimates.estimate[at], f"{name}_low": estimates.low[at], f"{name}_high": estimates.high[at]}


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value
