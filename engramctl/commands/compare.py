"""`engramctl compare A B`"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.errors import UserError
from engramctl.commands.options.results import JsonOption, ResultsOption
from engramctl.commands.process import one_blas_thread
from engramctl.present.json import print_json
from engramctl.results.defaults import DEFAULT_RESULTS

if TYPE_CHECKING:
    from engram.fitting.results import PairedDifference
    from engramctl.findings.compare import SweepComparison, TrialComparison

_HELP = "A sweep, or a trial as SWEEP/TRIAL, where TRIAL is an id or its beginning."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_HELP)],
    b: Annotated[str, typer.Argument(metavar="B", help="What it is compared with: a sweep too, or a trial too.")],
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Compare two trials, or two sweeps, document by document: loss of A less loss of B, with its 95 % interval.

    Below zero, A is better. Trials of sweeps are paired by size, budget, rho and seed, and by variant where a sweep has several.

    With one pair the interval is that of the validation documents alone: another seed may differ by more.

    Example: engramctl compare allocation/0123 allocation/89ab
    Example: engramctl compare allocation value
    """
    if ("/" in a) != ("/" in b):
        raise UserError(f"'{a}' and '{b}': two sweeps, or two trials as SWEEP/TRIAL, are expected")
    one_blas_thread()
    from engramctl.findings.compare import compare_sweeps, compare_trials
    from engramctl.present.tables.compare import print_sweeps, print_trials

    if "/" in a:
        trials = compare_trials(results, a, b)
        if as_json:
            print_json(_trials_json(trials))
        else:
            print_trials(trials)
    else:
        sweeps = compare_sweeps(results, a, b)
        if as_json:
            print_json(_sweeps_json(a, b, sweeps))
        else:
            print_sweeps(a, b, sweeps)


def _numbers(paired: "PairedDifference") -> dict[str, Any]:
    return {
        "difference": paired.difference.estimate,
        "low": paired.difference.low,
        "high": paired.difference.high,
        "p_value": paired.p_value,
        "n_pairs": paired.n_pairs,
        "n_documents": paired.n_documents,
    }


def _trials_json(found: "TrialComparison") -> dict[str, Any]:
    columns = ["sweep", "trial_id", "size", "budget_flops", "variant", "rho", "seed", "val_loss"]
    a, b = ({name: row[name] for name in columns} for row in (found.a, found.b))
    return {"a": a, "b": b, **_numbers(found.paired), "text": found.paired.text}


def _sweeps_json(a: str, b: str, found: "SweepComparison") -> dict[str, Any]:
    points = [
        {
            "size": point.size,
            "budget_flops": point.budget_flops,
            "variant": point.variant,
            "rho": point.rho,
            "loss_a": point.loss_a,
            "loss_b": point.loss_b,
            **_numbers(point.paired),
        }
        for point in found.points
    ]
    overall = {**_numbers(found.overall), "n_pairs": found.n_pairs, "n_seeds": found.overall.n_pairs, "text": found.overall.text}
    return {"a": a, "b": b, "points": points, "overall": overall, "without_partner": {"a": found.unpaired_a, "b": found.unpaired_b}}
