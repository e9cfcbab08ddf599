"""Benchmarks with the memory on and off in the terminal."""

from typing import TYPE_CHECKING

import pandas as pd

from engramctl.findings.suppressed_tasks import shown_tasks
from engramctl.present import console
from engramctl.present.format import bounds, number

if TYPE_CHECKING:
    from rich.table import Table


def task_table(frame: pd.DataFrame) -> "Table":
    """Scores with the memory on and off, retained share, chance and bits per byte."""
    rows = [
        [
            f"{'  ' if r['group'] else ''}{r['task']}",
            r["metric"],
            number(r["score_on"]),
            number(r["score_off"]),
            number(r["retained"], ".2f"),
            bounds(r["retained_low"], r["retained_high"], ".2f"),
            number(r["chance"]),
            number(r["bpb_on"]),
            number(r["bpb_off"]),
            f"{r['n']:,}",
        ]
        for r in shown_tasks(frame).to_dict("records")
    ]
    return console.table(["task", "metric", "on", "off", "retained", "95 %", "chance", "bpb on", "bpb off", "items"], rows, left=2)
