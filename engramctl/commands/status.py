"""`engramctl status`: what a sweep has done and what it still wants."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engramctl.results_options import DEFAULT_RESULTS, JsonOption, ResultsOption, command

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from engramctl.running import Running
    from engramctl.store import Store

OptionalSweepArgument = Annotated[str | None, typer.Argument(metavar="SWEEP", help="Name of a sweep. Without it: all sweeps, a line each.")]

STATUSES = ("finished", "diverged", "failed", "running", "missing")
MARKS = {"finished": "●", "diverged": "x", "failed": "!", "running": "◐", "missing": "·"}


def status(sweep: OptionalSweepArgument = None, results: ResultsOption = DEFAULT_RESULTS, as_json: JsonOption = False) -> None:
    """Show what is finished, diverged, failed, running now and missing, and how far unfinished trials have come.

    Example: engramctl status allocation --json
    """
    from engramctl import console
    from engramctl.running import read_running
    from engramctl.store import Store, list_sweeps

    if sweep is None:
        overview = []
        for name in list_sweeps(results):
            store = Store(results, name)
            overview.append(_counts(name, *_trials(store, read_running(store))))
        if as_json:
            console.print_json(overview)
        elif overview:
            _print_overview(overview)
        else:
            console.note(f"no sweeps in {results}; `engramctl sweep` runs one")
        return
    store = Store.open_existing(results, sweep)
    running = read_running(store)
    trials, n_left_out = _trials(store, running)
    if as_json:
        from engramctl.summary import records

        console.print_json({**_counts(sweep, trials, n_left_out), "trials": records(_with_progress(store, trials))})
        return
    _print_sweep(console.out(), _with_progress(store, trials))
    if running:
        console.note(f"process {running.process.pid} on {running.process.host} is running this sweep")
    elif trials["status"].isin(["failed", "missing"]).any():
        console.note(f"next: {command('sweep', sweep, results)} continues it")
    else:
        console.note(f"complete; next: {command('plot', sweep, results)}")


def _trials(store: "Store", running: "Running | None") -> "tuple[pd.DataFrame, int]":
    """Every trial the sweep wants (IDENTITY, status, val_loss, error, finished_at), and how many rows it no longer names."""
    import pandas as pd

    from engramctl.summary import IDENTITY, coverage

    manifest = store.read_manifest()
    columns = [*IDENTITY, "status", "val_loss", "error", "finished_at"]
    covered = coverage(store.read_trials(columns), manifest)
    missing = covered.missing.astype(object).assign(status="missing")
    trials = pd.concat([covered.trials.astype(object), missing], ignore_index=True)[columns]
    if running:
        trials.loc[trials["trial_id"].isin(running.trials) & trials["status"].isin(["failed", "missing"]), "status"] = "running"
    if manifest is None or "trials" not in manifest:
        trials = trials.sort_values(["budget_flops", "size", "variant", "rho", "seed"], ignore_index=True)
    else:
        # The manifest's order is the one that the sweep's author gave.
        place = {trial["trial_id"]: i for i, trial in enumerate(manifest["trials"])}
        trials = trials.sort_values("trial_id", key=lambda ids: ids.map(place), ignore_index=True)
    return trials, len(covered.left_out)


def _with_progress(store: "Store", trials: "pd.DataFrame") -> "pd.DataFrame":
    """The trials with `step` and `steps` of unfinished ones."""
    import pandas as pd

    progress = [
        _progress(store.checkpoints / i) if s in ("failed", "running", "missing") else None
        for i, s in zip(trials["trial_id"], trials["status"], strict=True)
    ]
    step, steps = ([p and p[k] for p in progress] for k in (0, 1))
    return trials.assign(step=pd.Series(step, dtype=object), steps=pd.Series(steps, dtype=object))


def _progress(folder: Path) -> tuple[int, int] | None:
    """Step of the newest checkpoint of a trial and the steps it wants; None without a checkpoint."""
    import json

    found = []
    for path in folder.glob("*/state.json"):
        try:
            state = json.loads(path.read_bytes())
            found.append((int(state["step"]), int(state["steps"])))
        except (OSError, ValueError, KeyError, TypeError):
            # A checkpoint that is being replaced at this moment; the next call sees it.
            continue
    return max(found, default=None)


def _counts(sweep: str, trials: "pd.DataFrame", n_left_out: int) -> dict[str, Any]:
    ends = trials["finished_at"].dropna()
    return {
        "sweep": sweep,
        **{f"n_{name}": int((trials["status"] == name).sum()) for name in STATUSES},
        "n_left_out": n_left_out,
        "budget_flops": sorted({float(b) for b in trials["budget_flops"]}),
        "finished_at": str(ends.max()) if len(ends) else None,
    }


def _print_overview(overview: list[dict[str, Any]]) -> None:
    from engramctl import console
    from engramctl.summary import format_flops

    rows = []
    for line in overview:
        budgets = [format_flops(b) for b in line["budget_flops"]]
        # To the minute; --json has the seconds.
        last = (line["finished_at"] or "-")[:16].replace("T", " ")
        rows.append([line["sweep"], *(line[f"n_{name}"] for name in STATUSES), "-".join(dict.fromkeys(budgets[:1] + budgets[-1:])), last])
    table = console.table(["sweep", "done", *STATUSES[1:], "FLOPs", "last (UTC)"], rows)
    # In a narrow terminal a long name folds, so that nothing is cut.
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    console.out().print(table)


def _print_sweep(terminal: "Console", trials: "pd.DataFrame") -> None:
    from engramctl import console
    from engramctl.summary import SERIES, format_flops, format_rho

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
    terminal.print("   ".join(f"{MARKS[name]} {name}" for name in STATUSES) + "   12% trained so far")
    failed = trials[trials["error"].notna()]
    if len(failed):
        terminal.print()
    for t in failed.to_dict("records"):
        what = f"{t['status']}: {t['trial_id']} {t['size']} {format_flops(t['budget_flops'])} rho {format_rho(t['rho'])} seed {t['seed']}"
        # The last line of a traceback says what went wrong; the whole text is in the table.
        reason = (str(t["error"]).strip().splitlines() or [""])[-1]
        terminal.print(f"{what}\n    {reason}", markup=False)


def _print_grid(terminal: "Console", group: "pd.DataFrame") -> None:
    """Seeds down, rho across, a mark each; as many blocks as the width of the terminal asks for."""
    from engramctl import console
    from engramctl.summary import format_rho

    cells: dict[tuple[int, float], str] = {}
    for t in group.to_dict("records"):
        share = f"{int(100 * t['step'] / t['steps'])}%" if t["step"] is not None and t["steps"] else None
        mark = MARKS[t["status"]]
        mark = share if share and t["status"] == "missing" else mark + (share or "")
        # Two trials in one cell (a sweep that varies something else too) show both.
        cells[t["seed"], t["rho"]] = cells.get((t["seed"], t["rho"]), "") + mark
    rhos = sorted(set(group["rho"]))
    width = max(len(text) for text in [*(format_rho(r) for r in rhos), *cells.values()]) + 2
    fit = max(1, (terminal.width - len("seed ")) // width)
    for start in range(0, len(rhos), fit):
        part = rhos[start : start + fit]
        rows = [[str(seed), *(cells.get((seed, rho), "") for rho in part)] for seed in sorted(set(group["seed"]))]
        terminal.print(console.table(["seed", *(format_rho(rho) for rho in part)], rows))
