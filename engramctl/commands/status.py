"""`engramctl status`: what a sweep has done and what it still wants."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.errors import UserError
from engramctl.commands.options.results import JsonOption, ResultsOption
from engramctl.results.defaults import DEFAULT_RESULTS, command

if TYPE_CHECKING:
    from pathlib import Path

    from engramctl.findings.status import SweepStatus

OptionalSweepArgument = Annotated[str | None, typer.Argument(metavar="SWEEP", help="Name of a sweep. Without it: all sweeps, a line each.")]


def status(sweep: OptionalSweepArgument = None, results: ResultsOption = DEFAULT_RESULTS, as_json: JsonOption = False) -> None:
    """Show what is finished, diverged, failed, running now and missing, and how far unfinished trials have come.

    Example: engramctl status allocation --json
    """
    from engramctl.commands.next_step import going_on
    from engramctl.findings.status import read_status, with_progress
    from engramctl.present import console
    from engramctl.present.json import print_json, records
    from engramctl.present.tables.status import print_overview, print_sweep
    from engramctl.results.store import Store, list_sweeps
    from engramctl.results.trial_table import FAILED, FINISHED, MISSING

    if sweep is None:
        overview = [_overview_line(results, name) for name in list_sweeps(results)]
        if as_json:
            print_json(overview)
        elif overview:
            print_overview(overview)
        else:
            console.note(f"no sweeps in {results}; `engramctl sweep` runs one")
        return
    store = Store.open_existing(results, sweep)
    found = read_status(store)
    trials = with_progress(store, found.trials)
    if as_json:
        print_json({**_counts(found), "trials": records(trials)})
        return
    print_sweep(console.out(), trials)
    if found.running:
        console.note(f"process {found.running.process.pid} on {found.running.process.host} is running this sweep")
    elif len(left := trials[trials["status"].isin([FAILED, MISSING])]):
        again = going_on(store.read_manifest(), set(left["trial_id"]), sweep, results)
        console.note(f"next: {again} {'continue' if '` and `' in again else 'continues'} it")
    elif found.counts[FINISHED]:
        console.note(f"complete; next: {command('plot', sweep, results)}")
    else:
        console.note("complete, but no trial has a loss: a lower train.learning_rate may help")


def _overview_line(results: "Path", name: str) -> dict[str, Any]:
    """Counts of a sweep; for one that can't be read (damaged, or of another version) why, so that it doesn't hide the others."""
    from engramctl.findings.status import STATUSES, read_status
    from engramctl.results.store import Store

    try:
        return _counts(read_status(Store(results, name)))
    except UserError as problem:
        nothing = dict.fromkeys([*(f"n_{status}" for status in STATUSES), "n_left_out"])
        return {"sweep": name, **nothing, "budget_flops": [], "finished_at": None, "unreadable": str(problem)}


def _counts(found: "SweepStatus") -> dict[str, Any]:
    ends = found.trials["finished_at"].dropna()
    return {
        "sweep": found.sweep,
        **{f"n_{name}": n for name, n in found.counts.items()},
        "n_left_out": found.n_left_out,
        "budget_flops": sorted({float(b) for b in found.trials["budget_flops"]}),
        "finished_at": str(ends.max()) if len(ends) else None,
    }
