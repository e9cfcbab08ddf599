"""Where sweeps stand, in the terminal."""

from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.text import Text

from engramctl.findings.status import RUNNING, STATUSES
from engramctl.present import console
from engramctl.present.format import NO_VALUE, format_flops, format_rho, last_line
from engramctl.results.trial_table import DIVERGED, FAILED, FINISHED, MISSING, SERIES

if TYPE_CHECKING:
    from rich.console import Console

MARKS = {FINISHED: "●", DIVERGED: "x", FAILED: "!", RUNNING: "◐", MISSING: "·"}


def print_overview(overview: list[dict[str, Any]]) -> None:
    """One line per sweep."""
    rows = []
    for line in overview:
        if "unreadable" in line:
            continue
        budgets = [format_flops(b) for b in line["budget_flops"]]
        # To the minute; --json has the seconds.
        last = (line["finished_at"] or NO_VALUE)[:16].replace("T", " ")
        rows.append([line["sweep"], *(line[f"n_{name}"] for name in STATUSES), "-".join(dict.fromkeys(budgets[:1] + budgets[-1:])), last])
    table = console.table(["sweep", "done", *STATUSES[1:], "FLOPs", "last (UTC)"], rows)
    # In a narrow terminal a long name is folded, so that nothing is cut off.
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    if rows:
        console.out().print(table)
    for line in overview:
        if "unreadable" in line:
            console.out().print(Text(f"{line['sweep']}  unreadable: {' '.join(line['unreadable'].split())}"), soft_wrap=True)


def print_sweep(terminal: "Console", trials: pd.DataFrame) -> None:
    """Counts and grids of one sweep, and why trials failed."""
    variants = bool((trials["variant"] != "").any())
    rows = []
    for _, group in trials.groupby(SERIES, sort=False):
        first, counts = group.iloc[0], [int((group["status"] == name).sum()) for name in STATUSES]
        rows.append([*([first["variant"]] if variants else []), first["size"], format_flops(first["budget_flops"]), *counts])
    names = ["size", "FLOPs", "done", *STATUSES[1:]]
    terminal.print(console.table(["variant", *names] if variants else names, rows, left=1 + variants))
    terminal.print()
    for _, group in trials.groupby(SERIES, sort=False):
        first = group.iloc[0]
        variant = f"{first['variant']}, " if first["variant"] else ""
        terminal.print(f"{variant}{first['size']}, {format_flops(first['budget_flops'])} FLOPs", style="italic", markup=False)
        _print_grid(terminal, group)
        terminal.print()
    terminal.print("   ".join(f"{MARKS[name]} {name}" for name in STATUSES) + "   NN% trained so far")
    failed = trials[trials["error"].notna()]
    if len(failed):
        terminal.print()
    for t in failed.to_dict("records"):
        what = f"{t['status']}: {t['trial_id']} {t['size']} {format_flops(t['budget_flops'])} rho {format_rho(t['rho'])} seed {t['seed']}"
        terminal.print(f"{what}\n    {last_line(t['error'])}", markup=False)


def _print_grid(terminal: "Console", group: pd.DataFrame) -> None:
    """A mark per trial, seeds down and rho across; several blocks where the terminal is too narrow for one."""
    cells: dict[tuple[int, float], str] = {}
    for t in group.to_dict("records"):
        share = f"{int(100 * t['step'] / t['steps'])}%" if t["step"] is not None and t["steps"] else None
        mark = MARKS[t["status"]]
        mark = share if share and t["status"] == MISSING else mark + (share or "")
        # Where two trials share a cell, because the sweep varies something else too, both are shown.
        cells[t["seed"], t["rho"]] = cells.get((t["seed"], t["rho"]), "") + mark
    rhos = sorted(set(group["rho"]))
    width = max(len(text) for text in [*(format_rho(r) for r in rhos), *cells.values()]) + 2
    fit = max(1, (terminal.width - len("seed ")) // width)
    for start in range(0, len(rhos), fit):
        part = rhos[start : start + fit]
        rows = [[str(seed), *(cells.get((seed, rho), "") for rho in part)] for seed in sorted(set(group["seed"]))]
        terminal.print(console.table(["seed", *(format_rho(rho) for rho in part)], rows))
