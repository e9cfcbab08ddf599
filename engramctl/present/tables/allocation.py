"""Losses over rho, and trials without a loss, in the terminal."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from engramctl.present import console
from engramctl.present.format import format_rho, human, number, series_name
from engramctl.results.trial_table import DIVERGED, FAILED, SERIES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_series(terminal: "Console", blocks: Iterable[tuple[pd.DataFrame, list[str]]], over_slots: bool) -> None:
    """A table for each series of `findings.allocation.allocation_summary`, followed by its remarks unless it is over slots."""
    for series, lines in blocks:
        terminal.print(_series_table(series, over_slots))
        for line in [] if over_slots else lines:
            terminal.print(f"! {line}", style="yellow")
        terminal.print()


def print_unfinished(terminal: "Console", absent: pd.DataFrame) -> None:
    """The trials without a loss (`SweepResults.unfinished`), if any."""
    if len(absent):
        terminal.print(_unfinished_table(absent))
        terminal.print()


def _series_table(series: pd.DataFrame, over_slots: bool) -> "Table":
    rows = []
    for r in (series.sort_values("n_slots") if over_slots else series).to_dict("records"):
        marks = ["<- lowest mean"] if r["is_minimum"] else []
        marks += [f"{r[f'n_{status}']} {status}" for status in (DIVERGED, FAILED) if r[f"n_{status}"]]
        slots, rho = human(r["n_slots"]), format_rho(r["rho"])
        rows.append(
            [
                *([slots, f"{r['rho']:.3f}"] if over_slots else [rho, r["n_routed_experts"], slots]),
                r["n_seeds"],
                number(r["val_loss"], ".4f"),
                number(r["val_loss_sd"], ".4f"),
                *([] if over_slots else [number(r["delta_rho1"], "+.4f")]),
                ", ".join(marks),
            ]
        )
    names = ["slots", "rho"] if over_slots else ["rho", "experts", "slots"]
    names += ["seeds", "val_loss", "sd", *([] if over_slots else ["vs rho=1"]), ""]
    table = console.table(names, rows, left=1, title=series_name(*series.iloc[0][SERIES]))
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    return table


def _unfinished_table(absent: pd.DataFrame) -> "Table":
    """One row per status, series and rho."""
    rows = []
    for _, group in absent.groupby(["status", *SERIES, "rho"], sort=False):
        first, seeds = group.iloc[0], ", ".join(str(seed) for seed in group["seed"])
        rows.append([first["status"], series_name(*first[SERIES]), format_rho(first["rho"]), seeds])
    table = console.table(["status", "of", "rho", "seeds"], rows, left=2, title="Trials without a loss")
    table.columns[-1].justify = "left"
    table.columns[1].no_wrap = table.columns[-1].no_wrap = False
    return table
