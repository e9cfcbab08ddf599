"""`engramctl compare A B`"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.errors import UserError
from engramctl.results_options import DEFAULT_RESULTS, JsonOption, ResultsOption

if TYPE_CHECKING:
    from engram.fitting.results import PairedDifference
    from engramctl.comparison import SweepComparison, TrialComparison

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
    from engramctl.threads import one_blas_thread

    one_blas_thread()
    from engramctl import console
    from engramctl.comparison import compare_sweeps, compare_trials

    if "/" in a:
        trials = compare_trials(results, a, b)
        if as_json:
            console.print_json(_trials_json(trials))
        else:
            _print_trials(trials)
    else:
        sweeps = compare_sweeps(results, a, b)
        if as_json:
            console.print_json(_sweeps_json(a, b, sweeps))
        else:
            _print_sweeps(a, b, sweeps)


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
    return {"a": a, "b": b, "points": points, "overall": overall, "without_partner": {"a": found.alone_a, "b": found.alone_b}}


def _cells(paired: "PairedDifference") -> list[str]:
    d = paired.difference
    return [f"{d.estimate:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}", f"{paired.p_value:.2g}"]


def _print_trials(found: "TrialComparison") -> None:
    from engramctl import console
    from engramctl.summary import format_flops, format_rho

    rows = []
    for name, row in (("A", found.a), ("B", found.b)):
        trial = f"{row['sweep']}/{row['trial_id']}"
        model = [row["size"], row["variant"] or "-", format_flops(row["budget_flops"]), format_rho(row["rho"]), row["seed"]]
        rows.append([name, trial, *model, f"{row['val_loss']:.4f}"])
    terminal = console.out()
    terminal.print(console.table(["", "trial", "size", "variant", "FLOPs", "rho", "seed", "val_loss"], rows, left=4))
    terminal.print()
    difference, interval, p = _cells(found.paired)
    line = f"A - B: {difference} nats per token, 95 % interval {interval}, p = {p}, {found.paired.n_documents} documents"
    terminal.print(line, markup=False)
    terminal.print(found.paired.text, markup=False)


def _print_sweeps(a: str, b: str, found: "SweepComparison") -> None:
    from engramctl import console
    from engramctl.summary import format_flops, format_rho

    variants = any(point.variant for point in found.points)
    rows = [
        [
            *([point.variant] if variants else []),
            point.size,
            format_flops(point.budget_flops),
            format_rho(point.rho),
            point.paired.n_pairs,
            f"{point.loss_a:.4f}",
            f"{point.loss_b:.4f}",
            *_cells(point.paired),
        ]
        for point in found.points
    ]
    rows.append([*([""] if variants else []), "all", "", "", found.n_pairs, "", "", *_cells(found.overall)])
    names = ["size", "FLOPs", "rho", "pairs", "loss A", "loss B", "A - B", "95 % interval", "p"]
    terminal = console.out()
    terminal.print(f"A: {a}, B: {b}; nats per token, {found.overall.n_documents} documents", markup=False)
    terminal.print(console.table(["variant", *names] if variants else names, rows, left=1 + variants))
    terminal.print()
    terminal.print(found.overall.text, markup=False)
    for name, alone in ((a, found.alone_a), (b, found.alone_b)):
        if alone:
            console.note(f"left out: {len(alone)} finished trial{'' if len(alone) == 1 else 's'} of {name} without a partner")
