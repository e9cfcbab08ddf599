"""`engramctl report`: a sweep on one page."""

from pathlib import Path
from typing import Annotated

import typer

from engram.fitting.margin import MARGIN
from engramctl.commands.options.results import JsonOption, MarginOption, ResultsOption, SweepArgument
from engramctl.commands.process import one_blas_thread
from engramctl.results.defaults import DEFAULT_RESULTS, DEFAULT_SWEEP, command

OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The HTML file.", show_default="RESULTS/SWEEP/report.html")]


def report(
    sweep: SweepArgument = DEFAULT_SWEEP,
    results: ResultsOption = DEFAULT_RESULTS,
    out: OutOption = None,
    margin: MarginOption = MARGIN,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained HTML page: question, verdict, figures, tables, cost, configs, versions.

    It needs no network and nothing beside it; it reads on a phone and prints. The fitted numbers also land in fits.parquet.

    Example: engramctl report laptop --results results/reference --out laptop.html
    """
    one_blas_thread()
    import pyarrow as pa

    from engram.errors import UserError
    from engram.files import write_atomically
    from engramctl.findings.fit_identity import fit_identity
    from engramctl.findings.fits import sweep_fits
    from engramctl.findings.ruler import matched_categories
    from engramctl.findings.scores import comparable
    from engramctl.present import console
    from engramctl.present.figures.draw import draw
    from engramctl.present.figures.evals import evals_figure
    from engramctl.present.figures.ruler import ruler_figure
    from engramctl.present.json import print_json
    from engramctl.present.report.analysis import findings
    from engramctl.present.report.fit_tables import fit_rows, verdicts
    from engramctl.present.report.page import page_figure, render
    from engramctl.results.parquet import write_table
    from engramctl.results.score_store import ScoreStore
    from engramctl.results.sweep_results import SweepResults

    if out is not None and out.is_dir():
        raise UserError(f"--out {out} is a folder; the name of an HTML file is expected")
    opened = SweepResults.open(results, sweep, columns=None).require_finished()
    store, fits = opened.store, sweep_fits(opened, margin=margin)
    path = out or store.folder / "report.html"
    figures = [page_figure(kind, draw(kind, opened.wanted, fits)) for kind in fits.kinds]
    scored = ScoreStore(store.folder).read()
    scores, _ = comparable(scored, opened.wanted["trial_id"])
    if scores is not None:
        figures.append(page_figure("evals", evals_figure(scores)))
    if by_length := matched_categories(scored, opened):
        figures.append(page_figure("ruler", ruler_figure(by_length)))
    commands = [command(name, sweep, results).strip("`") for name in ("status", "fit", "plot")]
    page = render(opened, fits, figures, commands, scores, findings(store))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode(errors="replace"))
    except OSError as problem:
        raise UserError(f"{path} can't be written: {problem.strerror}") from None
    kept, why = True, ""
    try:
        write_table(store.fits, pa.Table.from_pandas(fit_rows(fits), preserve_index=False), fit_identity(opened, margin))
    except OSError as problem:
        # The page has the numbers too; results are often of somebody else.
        kept, why = False, str(problem.strerror)
    if as_json:
        sentences = [{"of": of, "text": text} for of, text in verdicts(fits)]
        print_json({"report": str(path), "fits": str(store.fits) if kept else None, "verdicts": sentences})
    console.note(f"report: {path}")
    console.note(
        f"fitted numbers: {store.fits}" if kept else f"fitted numbers are in the report alone: {store.fits} can't be written: {why}"
    )
