"""`engramctl report`: a sweep on one page."""

from pathlib import Path
from typing import Annotated

import typer

from engramctl.results_options import DEFAULT_RESULTS, DEFAULT_SWEEP, JsonOption, ResultsOption, SweepArgument, command

OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The HTML file.", show_default="RESULTS/SWEEP/report.html")]


def report(
    sweep: SweepArgument = DEFAULT_SWEEP,
    results: ResultsOption = DEFAULT_RESULTS,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained HTML page: question, verdict, figures, tables, cost, configs, versions.

    It needs no network and nothing beside it; it reads on a phone and prints. The fitted numbers also land in fits.parquet.

    Example: engramctl report laptop --results results/reference --out laptop.html
    """
    from engramctl.threads import one_blas_thread

    one_blas_thread()
    from engram.errors import UserError
    from engramctl import console
    from engramctl.evals.matched import category_scores, matched
    from engramctl.evals.store import EvalStore
    from engramctl.evals.summary import comparable
    from engramctl.figures.evals import evals_figure
    from engramctl.figures.kinds import draw
    from engramctl.figures.ruler import ruler_figure
    from engramctl.fits import sweep_fits
    from engramctl.parquet import write_atomically
    from engramctl.report.analysis import findings
    from engramctl.report.fit_tables import fit_rows, verdicts
    from engramctl.report.page import page_figure, render
    from engramctl.store import Store
    from engramctl.summary import coverage, require_one_trial_each
    from engramctl.wanted import wanted_trials

    store = Store.open_existing(results, sweep)
    manifest = store.read_manifest() or {}
    covered = coverage(store.read_trials(), manifest or None)
    if not (covered.trials["status"] == "finished").any():
        raise UserError(f"sweep '{sweep}' in {results} has no finished trial; {command('status', sweep, results)} tells more")
    require_one_trial_each(covered.trials)
    wanted = wanted_trials(covered, manifest)
    fits = sweep_fits(store, wanted)
    figures = [page_figure(kind, draw(kind, wanted, fits)) for kind in fits.kinds]
    scores, _ = comparable(EvalStore(store.folder).read(), wanted["trial_id"])
    if scores is not None:
        figures.append(page_figure("evals", evals_figure(scores)))
    finished = wanted[wanted["status"] == "finished"]
    if by_length := matched(category_scores(EvalStore(store.folder).read(), finished, store.extension_sources())):
        figures.append(page_figure("ruler", ruler_figure(by_length)))
    again = "--results " + str(results) if results != DEFAULT_RESULTS else ""
    commands = [f"engramctl {name} {sweep} {again}".rstrip() for name in ("status", "fit", "plot")]
    page = render(sweep, manifest, covered, fits, figures, commands, scores, store.read_extensions(), findings(store))
    path = out or store.folder / "report.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode())
        write_atomically(store.fits, fit_rows(fits).to_parquet(index=False))
    except OSError as problem:
        raise UserError(f"{path} can't be written: {problem.strerror}") from None
    if as_json:
        sentences = [{"of": of, "text": text} for of, text in verdicts(fits)]
        console.print_json({"report": str(path), "fits": str(store.fits), "verdicts": sentences})
    console.note(f"report: {path}")
    console.note(f"fitted numbers: {store.fits}")
