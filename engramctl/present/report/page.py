"""The page: a single HTML file with its figures inside."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from engramctl import __version__
from engramctl.findings.fits import SweepFits
from engramctl.present.format import counted
from engramctl.present.report import content
from engramctl.present.report.analysis import Finding
from engramctl.present.report.drawn import PageFigure, drawn
from engramctl.present.report.fit_tables import fit_tables, verdicts
from engramctl.results.sweep_results import SweepResults
from engramctl.results.trial_table import DIVERGED, FAILED, MISSING, SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CAPTIONS = {
    "allocation": "Validation loss against rho, the experts' share of the inactive parameters. Points are trials, lines are fits.",
    "drift": "Best rho and gain over rho = 1 against the budget, with 95 % intervals. The line with its band is one fit of all budgets.",
    "memory": "Validation loss against memory slots on a fixed backbone. Beyond the measured range, in grey, it is an extrapolation.",
    "variants": "Difference in loss to the first variant, paired by seed, with 95 % intervals; below zero is better.",
    "layers": "Validation loss by the layers that have a memory.",
    "ruler": "RULER by length, for trials of equal compute and of equal loss. Dotted is the score of an echo.",
    "evals": "Benchmark scores and bits per byte of the right answers against rho. Bars are 95 % intervals over the items.",
}


def page_figure(kind: str, figure: "Figure") -> PageFigure:
    """A figure of fits or scores, with the caption of its kind."""
    return drawn(kind, figure, CAPTIONS[kind])


def render(
    sweep: SweepResults,
    fits: SweepFits,
    figures: Sequence[PageFigure],
    commands: Sequence[str],
    scores: pd.DataFrame | None = None,
    findings: Iterable[Finding] = (),
) -> str:
    """The whole page as text.

    Args:
        sweep: the sweep, opened with all columns of the trials table.
        fits: what it has shown.
        figures: the figures of fits and scores.
        commands: commands that print the same numbers in a terminal.
        scores: benchmark scores (`findings.scores.comparable`).
        findings: what `engramctl analyze` has found.
    """
    trials, done = sweep.trials, sweep.finished
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    varied, fixed = content.configs(trials)
    return environment.get_template("template.html").render(
        sweep=sweep.name,
        question=sweep.manifest.sweep.question or f"Sweep {sweep.name}",
        counts=_counts(sweep),
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        verdicts=[{"of": of, "text": text} for of, text in verdicts(fits)] or [{"of": "", "text": "Nothing to fit yet."}],
        warnings=_warnings(sweep),
        figures=figures,
        findings=[(one, one.figure) for one in findings],
        fit_tables=fit_tables(fits),
        point_tables=[*content.points(trials), *content.benchmarks(scores), *content.extensions(sweep.store.read_extensions())],
        cost=content.cost(done),
        varied=varied,
        fixed=fixed,
        origin=content.origin(trials),
        trials=content.every_trial(sweep),
        commands="\n".join(commands),
    )


def _counts(sweep: SweepResults) -> str:
    counts = sweep.trials["status"].value_counts().to_dict() | ({MISSING: len(sweep.missing)} if len(sweep.missing) else {})
    return ", ".join(f"{counted(n, 'trial')} {status}" for status, n in counts.items())


def _warnings(sweep: SweepResults) -> list[str]:
    lines, done = [], sweep.finished
    absent = {MISSING: len(sweep.missing)}
    absent |= {status: int((sweep.trials["status"] == status).sum()) for status in (DIVERGED, FAILED)}
    if any(absent.values()):
        lines.append("Not every trial has a loss: " + ", ".join(f"{n} {status}" for status, n in absent.items() if n) + ".")
    if done.groupby([*SERIES, "rho"])["seed"].nunique().max() == 1:
        lines.append("One seed: the spread between seeds is judged from how far trials lie from a smooth curve.")
    if (shas := done["git_sha"].dropna().unique()).size > 1:
        lines.append(f"Trials were made by {shas.size} versions of the code.")
    if any(str(sha).endswith("-dirty") for sha in shas):
        lines.append("Some trials were made by code with uncommitted changes.")
    return lines
