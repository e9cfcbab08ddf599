"""Use of a memory's rows as tables and on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from engramctl import console
from engramctl.analysis.cells import bounds, number
from engramctl.analysis.columnar import columns_of, interval
from engramctl.analysis.target import Target

if TYPE_CHECKING:
    from rich.table import Table

    from engram.analysis.heads import HeadLosses
    from engram.analysis.slot_use import HeadUse
    from engramctl.parquet import Columns

_SAME = ("table_set", "order", "head", "rows", "rows_touched", "distinct_ngrams")
_SHARES = ("ngrams_per_row", "shared_reads", "owner_reads", "hottest_share")


def head_columns(target: Target, use: "Sequence[HeadUse]", losses: "HeadLosses") -> "Columns":
    """A row for each head."""
    place = {head: i for i, head in enumerate(losses.heads)}
    rows = []
    for one in use:
        i = place[one.table_set, one.order, one.head]
        rows.append(
            {
                "trial_id": target.trial.id,
                "model": target.model,
                **{name: getattr(one, name) for name in (*_SAME, *_SHARES)},
                **interval("loss_alone", losses.alone, i),
                **interval("share_alone", losses.share, i),
                "loss_all": losses.all.estimate,
                "loss_none": losses.none.estimate,
            }
        )
    return columns_of("memory", rows)


def row_columns(target: Target, use: "Sequence[HeadUse]") -> "Columns":
    """Zipf curve and norms of every head."""
    rows = []
    for one in use:
        known = {"trial_id": target.trial.id, "model": target.model, "table_set": one.table_set, "order": one.order, "head": one.head}
        for rank, reads in zip(one.zipf_rank, one.zipf_reads, strict=True):
            rows.append({**known, "curve": "zipf", "rank": rank, "reads": reads, "n_rows": None, "norm": None})
        for reads, n_rows, norm in zip(one.norm_reads, one.norm_rows, one.norm, strict=True):
            rows.append({**known, "curve": "norm", "rank": None, "reads": reads, "n_rows": n_rows, "norm": norm})
    return columns_of("memory_rows", rows)


def head_table(frame: pd.DataFrame) -> "Table":
    """Rows, collisions, hottest rows and what each head brings alone."""
    several = frame["table_set"].nunique() > 1
    rows = [
        [
            *([r["table_set"]] if several else []),
            r["order"],
            r["head"],
            f"{r['rows']:,}",
            _percent(r["rows_touched"] / r["rows"]),
            f"{r['distinct_ngrams']:,}",
            number(r["ngrams_per_row"], ".1f"),
            _percent(r["shared_reads"]),
            _percent(r["owner_reads"]),
            _percent(r["hottest_share"]),
            number(r["loss_alone"]),
            number(_times(r["share_alone"]), ".1f"),
            bounds(_times(r["share_alone_low"]), _times(r["share_alone_high"]), ".1f"),
        ]
        for r in frame.to_dict("records")
    ]
    names = ["order", "head", "rows", "read %", "N-grams", "a row", "shared %", "owner %", "top 1 %", "loss alone", "brings %", "95 %"]
    return console.table([*(["tables"] if several else []), *names], rows, left=2 + several)


def _percent(share: float) -> str:
    return number(100 * share, ".1f")


def _times(share: float | None) -> float | None:
    return None if share is None else 100 * share
