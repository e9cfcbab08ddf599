"""`engramctl plot`: the allocation figure and its numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engramctl.results_options import DEFAULT_RESULTS, DEFAULT_SWEEP, JsonOption, ResultsOption, SweepArgument, command

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder for the figures.", show_default="RESULTS/SWEEP/figures")
]


def plot(
    sweep: SweepArgument = DEFAULT_SWEEP,
    results: ResultsOption = DEFAULT_RESULTS,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw validation loss against rho and print the numbers behind the figure.

    Writes allocation.png and allocation.svg. The table has one block for each size and budget.

    val_loss is the mean over seeds in nats per token, sd their spread.

    "vs rho=1" is the mean difference to experts alone, over the seeds that both have.

    Trials without a loss are listed, never hidden.

    Example: engramctl plot allocation --out figures/
    """
    from engram.errors import UserError
    from engramctl import console
    from engramctl.figures import allocation_figure, save
    from engramctl.store import Store
    from engramctl.summary import SERIES, allocation_summary, coverage, records, remarks, require_one_trial_each, unfinished

    store = Store.open_existing(results, sweep)
    covered = coverage(store.read_trials(), store.read_manifest())
    absent = unfinished(covered)
    counts = ", ".join(f"{n} {status}" for status, n in absent["status"].value_counts(sort=False).items())
    if len(absent) == len(covered.trials) + len(covered.missing):
        more = f"{command('status', sweep, results)} tells more"
        raise UserError(f"sweep '{sweep}' in {results} has no finished trial ({counts or 'none was started'}); {more}")
    require_one_trial_each(covered.trials)
    summary = allocation_summary(covered.trials)
    blocks = [(series, remarks(series)) for _, series in summary.groupby(SERIES, sort=False)]
    paths = save(allocation_figure(covered.trials, covered.missing), out or store.figures, "allocation")

    if as_json:
        notes = [{**records(series[SERIES])[0], "note": line} for series, lines in blocks for line in lines]
        console.print_json(
            {
                "figures": [str(path) for path in paths],
                "points": records(summary),
                "missing": records(absent),
                "notes": notes,
                "left_out": covered.left_out["trial_id"].tolist(),
            }
        )
    else:
        terminal = console.out()
        for series, lines in blocks:
            terminal.print(_block(series))
            for line in lines:
                terminal.print(f"! {line}", style="yellow")
            terminal.print()
        if len(absent):
            terminal.print(_absent_table(absent))
            terminal.print()

    console.note(f"figure: {' and '.join(str(path) for path in paths)}")
    if len(covered.left_out):
        console.note(f"left out: {len(covered.left_out)} trials of an earlier version of the sweep, which sweep.json no longer names")
    if to_run := int((absent["status"] != "diverged").sum()):
        console.note(f"next: {command('sweep', sweep, results)} runs the {to_run} missing or failed trial{'' if to_run == 1 else 's'}")
    else:
        seeds = int(covered.trials["seed"].max()) + 2
        console.note(f"next: the same `engramctl sweep` command with --seeds {seeds} adds a seed")


def _block(series: "pd.DataFrame") -> "RenderableType":
    """Table of one size and budget."""
    from engramctl import console
    from engramctl.summary import format_flops, format_rho

    def number(value: float, form: str) -> str:
        return "-" if value != value else format(value, form)

    rows = []
    for r in series.to_dict("records"):
        marks = ["<- lowest mean"] if r["is_minimum"] else []
        marks += [f"{r[f'n_{status}']} {status}" for status in ("diverged", "failed") if r[f"n_{status}"]]
        rows.append(
            [
                format_rho(r["rho"]),
                r["n_routed_experts"],
                console.human(r["n_slots"]),
                r["n_seeds"],
                number(r["val_loss"], ".4f"),
                number(r["val_loss_sd"], ".4f"),
                number(r["delta_rho1"], "+.4f"),
                ", ".join(marks),
            ]
        )
    first = series.iloc[0]
    names = ["rho", "experts", "slots", "seeds", "val_loss", "sd", "vs rho=1", ""]
    table = console.table(names, rows, left=1, title=f"{first['size']}, {format_flops(first['budget_flops'])} FLOPs")
    table.columns[-1].justify = "left"
    return table


def _absent_table(absent: "pd.DataFrame") -> "RenderableType":
    """Trials without a loss, one row for each status, size, budget and rho."""
    from engramctl import console
    from engramctl.summary import format_flops, format_rho

    rows = []
    for _, group in absent.groupby(["status", "size", "budget_flops", "rho"], sort=False):
        first, seeds = group.iloc[0], ", ".join(str(seed) for seed in group["seed"])
        rows.append([first["status"], first["size"], format_flops(first["budget_flops"]), format_rho(first["rho"]), seeds])
    table = console.table(["status", "size", "FLOPs", "rho", "seeds"], rows, left=2, title="Trials without a loss")
    table.columns[-1].justify = "left"
    return table
