"""Comparisons of trials and sweeps in the terminal."""

from typing import TYPE_CHECKING

from engramctl.findings.compare import SweepComparison, TrialComparison
from engramctl.present import console
from engramctl.present.format import NO_VALUE, counted, format_flops, format_rho

if TYPE_CHECKING:
    from engram.fitting.results import PairedDifference


def _cells(paired: "PairedDifference") -> list[str]:
    d = paired.difference
    return [f"{d.estimate:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}", f"{paired.p_value:.2g}"]


def print_trials(found: TrialComparison) -> None:
    """Both trials and their difference."""
    rows = []
    for name, row in (("A", found.a), ("B", found.b)):
        trial = f"{row['sweep']}/{row['trial_id']}"
        model = [row["size"], row["variant"] or NO_VALUE, format_flops(row["budget_flops"]), format_rho(row["rho"]), row["seed"]]
        rows.append([name, trial, *model, f"{row['val_loss']:.4f}"])
    terminal = console.out()
    terminal.print(console.table(["", "trial", "size", "variant", "FLOPs", "rho", "seed", "val_loss"], rows, left=4))
    terminal.print()
    difference, interval, p = _cells(found.paired)
    line = f"A - B: {difference} nats per token, 95 % interval {interval}, p = {p}, {found.paired.n_documents} documents"
    terminal.print(line, markup=False)
    terminal.print(found.paired.text, markup=False)


def print_sweeps(a: str, b: str, found: SweepComparison) -> None:
    """The difference at each point and over all of them."""
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
    for name, unpaired in ((a, found.unpaired_a), (b, found.unpaired_b)):
        if unpaired:
            console.note(f"left out: {counted(len(unpaired), 'finished trial')} of {name} without a partner")
