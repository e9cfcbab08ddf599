"""Losses with the memory on and off as a table and on the terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from engramctl import console
from engramctl.analysis.cells import bounds, number
from engramctl.analysis.columnar import columns_of, interval
from engramctl.analysis.target import Target

if TYPE_CHECKING:
    from rich.table import Table

    from engram.analysis.suppression import SuppressedLosses
    from engramctl.parquet import Columns


def suppression_columns(target: Target, found: "Sequence[SuppressedLosses]") -> "Columns":
    """A row for each group that has a token."""
    known = {"trial_id": target.trial.id, "model": target.model}
    return columns_of("suppress", ({**known, **row} for row in _rows(found)))


def _rows(found: "Sequence[SuppressedLosses]") -> Iterator[dict[str, Any]]:
    for losses in found:
        for i, label in enumerate(losses.labels):
            if losses.n_tokens[i]:
                yield {
                    "grouping": losses.name,
                    "label": label,
                    "n_tokens": losses.n_tokens[i],
                    **interval("loss_on", losses.on, i),
                    **interval("loss_off", losses.off, i),
                    **interval("difference", losses.difference, i),
                    **interval("retained", losses.retained, i),
                }


def suppression_table(frame: pd.DataFrame) -> "Table":
    """Loss on and off, their difference, and what is retained, by group."""
    rows = [
        [
            r["grouping"],
            r["label"],
            f"{r['n_tokens']:,}",
            number(r["loss_on"]),
            number(r["loss_off"]),
            number(r["difference"], "+.3f"),
            bounds(r["difference_low"], r["difference_high"], "+.3f"),
            number(_percent(r["retained"]), ".1f"),
            bounds(_percent(r["retained_low"]), _percent(r["retained_high"]), ".1f"),
        ]
        for r in frame.to_dict("records")
    ]
    names = ["tokens by", "group", "tokens", "loss on", "loss off", "off - on", "95 %", "retained %", "95 %"]
    return console.table(names, rows, left=2)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
