"""Losses with the memory on and off in the terminal."""

from typing import TYPE_CHECKING

import pandas as pd

from engramctl.present import console
from engramctl.present.format import bounds, number, percent, percent_bounds

if TYPE_CHECKING:
    from rich.table import Table


def suppression_table(frame: pd.DataFrame) -> "Table":
    """Loss with the memory on and off, the difference, and what is retained, by group of tokens."""
    rows = [
        [
            r["grouping"],
            r["label"],
            f"{r['n_tokens']:,}",
            number(r["loss_on"]),
            number(r["loss_off"]),
            number(r["difference"], "+.3f"),
            bounds(r["difference_low"], r["difference_high"], "+.3f"),
            percent(r["retained"]),
            percent_bounds(r["retained_low"], r["retained_high"]),
        ]
        for r in frame.to_dict("records")
    ]
    names = ["tokens by", "group", "tokens", "loss on", "loss off", "off - on", "95 %", "retained %", "95 %"]
    return console.table(names, rows, left=2)
