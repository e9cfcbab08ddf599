"""`engramctl plot`: the figures of a sweep and their numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram.errors import UserError
from engram.fitting.margin import MARGIN
from engramctl.commands.options.results import JsonOption, MarginOption, ResultsOption, SweepArgument
from engramctl.commands.process import no_collection, one_blas_thread
from engramctl.present import console
from engramctl.present.format import counted
from engramctl.results.defaults import DEFAULT_RESULTS, DEFAULT_SWEEP, as_typed

if TYPE_CHECKING:
    import pandas as pd

    from engramctl.findings.fits import SweepFits
    from engramctl.results.sweep_results import SweepResults

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
    margin: MarginOption = MARGIN,
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
    one_blas_thread()
    from engramctl.findings.allocation import allocation_summary, remarks
    from engramctl.findings.questions import AUTO, EVALS, RULER, chosen_kinds
    from engramctl.findings.ruler import matched_categories
    from engramctl.present.figures.draw import draw
    from engramctl.present.figures.save import check_formats, save
    from engramctl.present.json import fits_as_json, print_json, records
    from engramctl.present.tables.allocation import print_series, print_unfinished
    from engramctl.present.tables.fits import print_fits
    from engramctl.present.tables.scores import print_scores, ruler_table
    from engramctl.results.score_store import ScoreStore
    from engramctl.results.sweep_results import SweepResults
    from engramctl.results.trial_table import SERIES

    wanted_formats = check_formats(formats)
    opened = SweepResults.open(results, sweep).require_finished()
    scored = ScoreStore(opened.store.folder).read()
    scores = _comparable_scores(scored, opened, required=kind == EVALS) if kind in (AUTO, EVALS) else None
    by_length = matched_categories(scored, opened) if kind in (AUTO, RULER) else {}
    if kind == RULER and not by_length:
        raise UserError(
            f"sweep '{sweep}' has no RULER scores of two values of rho at one budget, or at one loss; "
            f"{as_typed(['eval', 'ruler', '--lengths', '512,1024', '--sweep', sweep], results)} makes some"
        )
    fits = _fits(opened, [] if kind in (EVALS, RULER) else chosen_kinds(kind, opened), margin)
    folder = out or opened.store.figures
    paths = {name: save(draw(name, opened.wanted, fits), folder, name, wanted_formats) for name in fits.kinds}
    if scores is not None:
        from engramctl.present.figures.evals import evals_figure

        paths[EVALS] = save(evals_figure(scores), folder, EVALS, wanted_formats)
    if by_length:
        from engramctl.present.figures.ruler import ruler_figure

        paths[RULER] = save(ruler_figure(by_length), folder, RULER, wanted_formats)
    summary, absent = allocation_summary(opened.trials), opened.unfinished
    blocks = [(series, remarks(series)) for _, series in summary.groupby(SERIES, sort=False)]
    if as_json:
        over_rho = {"allocation", "drift"} & set(fits.kinds)
        notes = [{**records(series[SERIES])[0], "note": line} for series, lines in blocks for line in lines] if over_rho else []
        print_json(
            {
                "figures": [str(path) for each in paths.values() for path in each],
                "points": records(summary),
                "missing": records(absent),
                "notes": notes,
                "left_out": opened.left_out["trial_id"].tolist(),
                "fits": fits_as_json(fits, bands=False),
                "evals": [] if scores is None else records(scores),
                "ruler": {name: records(rows) for name, rows in by_length.items()},
            }
        )
    else:
        terminal = console.out()
        # For variants and layers the losses are in the tables of their differences.
        if {"allocation", "drift", "memory"} & set(fits.kinds):
            print_series(terminal, blocks, over_slots="memory" in fits.kinds)
        print_fits(terminal, fits)
        print_unfinished(terminal, absent)
        if scores is not None:
            print_scores(terminal, scores)
            terminal.print()
        for name, rows in by_length.items():
            terminal.print(ruler_table(name, rows))
    for each in paths.values():
        console.note(f"figure: {each[0]}" + "".join(f", {path.suffix[1:]}" for path in each[1:]))
    _note_next(opened, fits)


def _comparable_scores(scored: "pd.DataFrame", opened: "SweepResults", required: bool) -> "pd.DataFrame | None":
    """Benchmark scores of the sweep's trials, or None without any; UserError if they are required."""
    from engramctl.findings.scores import comparable

    scores, lines = comparable(scored, opened.wanted["trial_id"])
    if scores is None and required:
        some = as_typed(["eval", "mmlu", "--sweep", opened.name], opened.store.results)
        raise UserError(f"sweep '{opened.name}' has no benchmark scores; {some} makes some")
    for line in lines:
        console.note(line)
    return scores


def _fits(opened: "SweepResults", kinds: list[str], margin: float) -> "SweepFits":
    """The fits that the figures show; trials whose losses on documents are gone are still drawn over rho, without a fit."""
    from engram.fitting.margin import check_margin
    from engramctl.findings.fits import SweepFits, sweep_fits

    check_margin(margin)
    try:
        return sweep_fits(opened, kinds, margin)
    except UserError as problem:
        if "allocation" not in kinds:
            raise
        console.note(f"no fits: {problem}")
        return SweepFits(kinds=("allocation",))


def _note_next(opened: "SweepResults", fits: "SweepFits") -> None:
    """Say what was left out, and what to run next."""
    from engramctl.commands.next_step import further, going_on
    from engramctl.results.trial_table import DIVERGED

    if n := len(opened.left_out):
        console.note(f"left out: {counted(n, 'trial')} of an earlier version of the sweep, which sweep.json no longer names")
    to_run = opened.unfinished.query(f"status != '{DIVERGED}'")["trial_id"]
    if len(to_run):
        again = going_on(opened.manifest, set(to_run), opened.name, opened.store.results)
        console.note(f"next: {again} runs the {counted(len(to_run), 'missing or failed trial')}")
        return
    console.note(f"next: {further(opened, fits)}")
