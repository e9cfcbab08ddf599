"""`engramctl plot`: the figures of a sweep and their numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engramctl.collector import no_collection
from engramctl.results_options import DEFAULT_RESULTS, DEFAULT_SWEEP, JsonOption, ResultsOption, SweepArgument, command

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, RenderableType

    from engramctl.fits import SweepFits
    from engramctl.reading import Read

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder for the figures.", show_default="RESULTS/SWEEP/figures")
]
KindOption = Annotated[
    str,
    typer.Option("--kind", metavar="K", help="allocation, drift, memory, variants, layers, evals or ruler; auto: all that apply."),
]
FormatOption = Annotated[str, typer.Option("--format", metavar="F", help="Files to write: png, svg and pdf, with commas between.")]


@no_collection()
def plot(
    sweep: SweepArgument = DEFAULT_SWEEP,
    results: ResultsOption = DEFAULT_RESULTS,
    out: OutOption = None,
    kind: KindOption = "auto",
    formats: FormatOption = "png,svg,pdf",
    as_json: JsonOption = False,
) -> None:
    """Draw what a sweep has measured and print the numbers behind the figures.

    Writes one figure for each kind that applies: loss against rho (allocation), its lowest point against the budget (drift), loss
    against slots (memory), variants against the first one (variants), loss by layer (layers), benchmark scores (evals),
    RULER by length for trials of equal compute and of equal loss (ruler).

    val_loss is the mean over seeds in nats per token, sd their spread.

    "vs rho=1" is the mean difference to experts alone, over the seeds that both have. Intervals are 95 %.

    Trials without a loss are listed, never hidden.

    Example: engramctl plot allocation --out figures/ --format pdf
    """
    from engramctl.threads import one_blas_thread

    one_blas_thread()
    from engramctl import console
    from engramctl.evals.tables import ruler_table
    from engramctl.figures.kinds import draw
    from engramctl.figures.save import check_formats, save
    from engramctl.fit_json import fits_as_json
    from engramctl.kinds import AUTO, EVALS, RULER, chosen_kinds
    from engramctl.reading import read_wanted
    from engramctl.summary import SERIES, allocation_summary, records, remarks, unfinished

    wanted_formats = check_formats(formats)
    read = read_wanted(results, sweep)
    scores = _scores(read, sweep, required=kind == EVALS) if kind in (AUTO, EVALS) else None
    by_length = _by_length(read, sweep, required=kind == RULER) if kind in (AUTO, RULER) else {}
    kinds = [] if kind in (EVALS, RULER) else chosen_kinds(kind, read.wanted, read.manifest, sweep)
    fits = _fits(read, kinds)
    folder = out or read.store.figures
    paths = {name: save(draw(name, read.wanted, fits), folder, name, wanted_formats) for name in fits.kinds}
    if scores is not None:
        from engramctl.figures.evals import evals_figure

        paths[EVALS] = save(evals_figure(scores), folder, EVALS, wanted_formats)
    if by_length:
        from engramctl.figures.ruler import ruler_figure

        paths[RULER] = save(ruler_figure(by_length), folder, RULER, wanted_formats)
    summary = allocation_summary(read.covered.trials)
    blocks = [(series, remarks(series)) for _, series in summary.groupby(SERIES, sort=False)]
    absent = unfinished(read.covered)
    if as_json:
        over_rho = {"allocation", "drift"} & set(fits.kinds)
        notes = [{**records(series[SERIES])[0], "note": line} for series, lines in blocks for line in lines] if over_rho else []
        console.print_json(
            {
                "figures": [str(path) for each in paths.values() for path in each],
                "points": records(summary),
                "missing": records(absent),
                "notes": notes,
                "left_out": read.covered.left_out["trial_id"].tolist(),
                "fits": fits_as_json(fits, bands=False),
                "evals": [] if scores is None else records(scores),
                "ruler": {name: records(rows) for name, rows in by_length.items()},
            }
        )
    else:
        _print(console.out(), fits, blocks, absent)
        if scores is not None:
            _print_scores(console.out(), scores)
        for name, rows in by_length.items():
            console.out().print(ruler_table(name, rows))
    for each in paths.values():
        console.note(f"figure: {each[0]}" + "".join(f", {path.suffix[1:]}" for path in each[1:]))
    _next(read, absent, sweep, results)


def _scores(read: "Read", sweep: str, required: bool) -> "pd.DataFrame | None":
    """Benchmark scores of the sweep's trials, None without any; UserError then if they are required."""
    from engram.errors import UserError
    from engramctl import console
    from engramctl.evals.store import EvalStore
    from engramctl.evals.summary import comparable

    scores, lines = comparable(EvalStore(read.store.folder).read(), read.wanted["trial_id"])
    if scores is None and required:
        raise UserError(f"sweep '{sweep}' has no benchmark scores; `engramctl eval mmlu --sweep {sweep}` makes some")
    for line in lines:
        console.note(line)
    return scores


def _by_length(read: "Read", sweep: str, required: bool) -> "dict[str, pd.DataFrame]":
    """RULER's categories of trials and of their extensions that may be compared; UserError when there are none and they are required."""
    from engram.errors import UserError
    from engramctl.evals.matched import category_scores, matched
    from engramctl.evals.store import EvalStore

    finished = read.wanted[read.wanted["status"] == "finished"]
    scores = EvalStore(read.store.folder).read()
    groups = matched(category_scores(scores, finished, read.store.extension_sources())) if len(scores) else {}
    if required and not groups:
        raise UserError(
            f"sweep '{sweep}' has no RULER scores of two values of rho at one budget, or at one loss; "
            f"`engramctl eval ruler --lengths 512,1024 --sweep {sweep}` makes some"
        )
    return groups


def _print_scores(terminal: "Console", scores: "pd.DataFrame") -> None:
    from engramctl.evals.tables import remarks, score_table

    terminal.print(score_table(scores))
    for line in remarks(scores):
        terminal.print(line, markup=False, style="dim", soft_wrap=True)
    terminal.print()


def _fits(read: "Read", kinds: list[str]) -> "SweepFits":
    """The fits that the figures show; trials whose losses on documents are gone are still drawn over rho."""
    from engram.errors import UserError
    from engramctl import console
    from engramctl.fits import SweepFits, sweep_fits

    try:
        return sweep_fits(read.store, read.wanted, kinds)
    except UserError as problem:
        if "allocation" not in kinds:
            raise
        console.note(f"no fits: {problem}")
        return SweepFits(kinds=("allocation",))


def _print(terminal: "Console", fits: "SweepFits", blocks: "list[tuple[pd.DataFrame, list[str]]]", absent: "pd.DataFrame") -> None:
    from engramctl.fit_tables import print_fits

    # Variants and layers have their losses in the tables of their differences.
    if {"allocation", "drift", "memory"} & set(fits.kinds):
        for series, lines in blocks:
            over_slots = "memory" in fits.kinds
            terminal.print(_block(series, over_slots))
            for line in [] if over_slots else lines:
                terminal.print(f"! {line}", style="yellow")
            terminal.print()
    print_fits(terminal, fits)
    if len(absent):
        terminal.print(_absent_table(absent))
        terminal.print()


def _next(read: "Read", absent: "pd.DataFrame", sweep: str, results: Path) -> None:
    from engramctl import console

    if n := len(read.covered.left_out):
        console.note(f"left out: {n} trials of an earlier version of the sweep, which sweep.json no longer names")
    if to_run := int((absent["status"] != "diverged").sum()):
        console.note(f"next: {command('sweep', sweep, results)} runs the {to_run} missing or failed trial{'' if to_run == 1 else 's'}")
    else:
        seeds = int(read.covered.trials["seed"].max()) + 2
        console.note(f"next: the same `engramctl sweep` command with --seeds {seeds} adds a seed")


def _block(series: "pd.DataFrame", over_slots: bool) -> "RenderableType":
    """Table of one size, budget and variant."""
    from engramctl import console
    from engramctl.fit_tables import series_name
    from engramctl.summaries.pairs import Series
    from engramctl.summary import SERIES, format_rho

    def number(value: float, form: str) -> str:
        return "-" if value != value else format(value, form)

    rows = []
    for r in (series.sort_values("n_slots") if over_slots else series).to_dict("records"):
        marks = ["<- lowest mean"] if r["is_minimum"] else []
        marks += [f"{r[f'n_{status}']} {status}" for status in ("diverged", "failed") if r[f"n_{status}"]]
        slots, rho = console.human(r["n_slots"]), format_rho(r["rho"])
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
    table = console.table(names, rows, left=1, title=series_name(Series(*series.iloc[0][SERIES])))
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    return table


def _absent_table(absent: "pd.DataFrame") -> "RenderableType":
    """Trials without a loss, one row for each status, series and rho."""
    from engramctl import console
    from engramctl.fit_tables import series_name
    from engramctl.summaries.pairs import Series
    from engramctl.summary import SERIES, format_rho

    rows = []
    for _, group in absent.groupby(["status", *SERIES, "rho"], sort=False):
        first, seeds = group.iloc[0], ", ".join(str(seed) for seed in group["seed"])
        rows.append([first["status"], series_name(Series(*first[SERIES])), format_rho(first["rho"]), seeds])
    table = console.table(["status", "of", "rho", "seeds"], rows, left=2, title="Trials without a loss")
    table.columns[-1].justify = "left"
    table.columns[1].no_wrap = table.columns[-1].no_wrap = False
    return table
