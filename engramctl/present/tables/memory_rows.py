"""How the rows of a memory are used, in the terminal."""

from typing import TYPE_CHECKING

import pandas as pd

from engramctl.present import console
from engramctl.present.format import number, percent, percent_bounds

if TYPE_CHECKING:
    from rich.table import Table


def head_table(frame: pd.DataFrame) -> "Table":
    """Rows, collisions, hottest rows and what each head brings on its own."""
    several = frame["table_set"].nunique() > 1
    rows = [
        [
            *([r["table_set"]] if several else []),
            r["order"],
            r["head"],
            f"{r['rows']:,}",
            percent(r["rows_touched"] / r["rows"]),
            f"{r['distinct_ngrams']:,}",
            number(r["ngrams_per_row"], ".1f"),
            percent(r["shared_reads"]),
            percent(r["owner_reads"]),
            percent(r["hottest_share"]),
            number(r["loss_alone"]),
            percent(r["share_alone"]),
            percent_bounds(r["share_alone_low"], r["share_alone_high"]),
        ]
        for r in frame.to_dict("records")
    ]
    names = ["order", "head", "rows", "read %", "N-grams", "a row", "shared %", "owner %", "top 1 %", "loss alone", "brings %", "95 %"]
    return console.table([*(["tables"] if several else []), *names], rows, left=2 + several)
