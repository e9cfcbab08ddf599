"""Fits in the terminal: tables and sentences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engramctl.findings.fits import SweepFits
from engramctl.present import console
from engramctl.present.format import NO_VALUE, format_flops, format_rho, human, is_missing, number, series_name
from engramctl.present.verdicts import answers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from engram.fitting.results import Interval
    from engramctl.findings.losses import SeedDifferences

_MOST_COSTS = 12
"""Rhos for which a table of costs is readable."""
_ROOMY = 116
"""Terminal width from which an interval fits beside its estimate; otherwise it goes below."""


def print_fits(terminal: "Console", fits: SweepFits) -> None:
    """A table for each kind of fit, followed by what the fits have shown in words."""
    break_at = " " if terminal.width >= _ROOMY else "\n"
    for table, sentences in _blocks(fits, break_at):
        terminal.print(table)
        for sentence in sentences:
            terminal.print(sentence, markup=False)
        terminal.print()


def _blocks(fits: SweepFits, break_at: str) -> "Iterator[tuple[Table, list[str]]]":
    if fits.allocation:
        yield _allocation_table(fits, break_at), [f"{series_name(*key)}: {text}" for key, text in answers(fits)]
        if costs := _cost_table(fits):
            yield costs, []
    if fits.drift:
        rows = [
            [
                ", ".join(part for part in model if part),
                _interval(drift.slope, "+.3f", break_at),
                number(drift.p_change, ".2g"),
                _interval(drift.tilt, "+.4f", break_at),
                number(drift.p_tilt, ".2g"),
            ]
            for model, drift in fits.drift.items()
        ]
        sentences = [f"{row[0]}: {drift.text}" for row, drift in zip(rows, fits.drift.values(), strict=True)]
        yield console.table(["drift for 10x budget", "rho*", "p of a change", "tilt", "p of tilt"], rows), sentences
    if fits.memory or fits.no_memory:
        yield _memory_table(fits, break_at), [f"{series_name(*key)}: {fit.text}" for key, fit in fits.memory.items()]
    if fits.variants:
        yield _variants_table(fits, break_at), []
    if fits.layers:
        yield _layers_table(fits, break_at), []


def _interval(interval: "Interval", form: str, break_at: str) -> str:
    """Estimate and bounds; a dash if there is no estimate."""
    if is_missing(interval.estimate):
        return NO_VALUE
    bounds = "" if is_missing(interval.low) else f"{break_at}({interval.low:{form}}, {interval.high:{form}})"
    return f"{interval.estimate:{form}}{bounds}"


def _bounds(interval: "Interval", form: str) -> str:
    return NO_VALUE if is_missing(interval.low) else f"{interval.low:{form}}, {interval.high:{form}}"


def _allocation_table(fits: SweepFits, break_at: str) -> "Table":
    margin = next((fit.near_best.margin for fit in fits.allocation.values() if fit.near_best), None)
    rows: list[list[object]] = [
        [
            series_name(*key),
            NO_VALUE if fit.near_best is None else f"{fit.near_best.low:.2f} to {fit.near_best.high:.2f}",
            NO_VALUE if fit.near_best is None else f"{100 * fit.near_best.confidence:.0f} %",
            _interval(fit.rho_star, ".2f", break_at),
            _bounds(fit.rho_smooth, ".2f"),
            _interval(fit.gain, ".4f", break_at),
            _interval(fit.crossing, ".2f", break_at),
            number(fit.noise_sd, ".4f"),
            fit.n_seeds,
        ]
        for key, fit in fits.allocation.items()
    ]
    near = "near the best" if margin is None else f"within {margin:g}"
    names = ["fit over rho", near, "sure if smooth", "rho*", "rho* if smooth", "gain over rho=1", "crossing", "noise", "seeds"]
    return _table(names, rows, left=1, fold=(0,))


def _cost_table(fits: SweepFits) -> "Table | None":
    """What each rho costs more than the best: the estimate, and what it is not above at 97.5 %."""
    costs = {key: fit.near_best.cost for key, fit in fits.allocation.items() if fit.near_best}
    rhos = sorted({float(rho) for cost in costs.values() for rho in cost.x})
    if not costs or len(rhos) > _MOST_COSTS:
        return None
    rows: list[list[object]] = []
    for key, cost in costs.items():
        cells = {float(rho): f"{loss:.3f}\n<{high:.3f}" for rho, loss, high in zip(cost.x, cost.loss, cost.high, strict=True)}
        rows.append([series_name(*key), *(cells.get(rho, NO_VALUE) for rho in rhos)])
    title = "What a rho costs more than the best, nats per token, and what it costs at most"
    return _table(["rho", *map(format_rho, rhos)], rows, left=1, fold=(0,), title=title)


def _table(names: list[str], rows: list[list[object]], left: int, fold: tuple[int, ...], title: str | None = None) -> "Table":
    """A table whose columns `fold` break between words in a narrow terminal, while numbers stay whole."""
    table = console.table(names, rows, left=left, title=title)
    for i in fold:
        table.columns[i].no_wrap, table.columns[i].overflow = False, "fold"
        table.columns[i].min_width = max(len(word) for text in [names[i], *(str(row[i]) for row in rows)] for word in text.split() or [""])
    return table


def _memory_table(fits: SweepFits, break_at: str) -> "Table":
    rows: list[list[object]] = []
    for (size, budget), none in fits.no_memory.items():
        rows.append([f"{size}, {format_flops(budget)} FLOPs, no memory", "", "", "", f"{none.loss:.4f}"])
    for key, fit in fits.memory.items():
        gain, most = fits.memory_gain.get(key), NO_VALUE
        if gain and gain.difference:
            paired = gain.difference.paired.difference
            most = f"{paired.estimate:+.4f} at {human(gain.n_slots)}{break_at}({paired.low:+.4f}, {paired.high:+.4f})"
        exponent = _interval(fit.parameters["power-law"]["exponent"], ".2f", break_at)
        form = f"{fit.form} {fit.probability[fit.form]:.0%}"
        rows.append([series_name(*key), form, _interval(fit.per_tenfold, "+.4f", break_at), exponent, most])
    return _table(["loss against slots", "form", "for 10x slots", "if power law", "vs no memory"], rows, left=2, fold=(0,))


def _difference(difference: "SeedDifferences | None", break_at: str) -> list[str]:
    if difference is None:
        return [NO_VALUE, NO_VALUE, "0"]
    paired = difference.paired
    return [_interval(paired.difference, "+.4f", break_at), f"{paired.p_value:.2g}", str(paired.n_pairs)]


def _variants_table(fits: SweepFits, break_at: str) -> "Table":
    several = len({(one.size, one.budget_flops) for one in fits.variants}) > 1
    rows: list[list[object]] = []
    seen = set()
    for one in fits.variants:
        at = [one.size, format_flops(one.budget_flops)] if several else []
        if (head := (one.size, one.budget_flops, one.reference_rho)) not in seen:
            seen.add(head)
            rows.append([*at, one.reference, format_rho(one.reference_rho), number(one.reference_loss, ".4f"), "reference", "", ""])
        rows.append([*at, one.variant, format_rho(one.rho), number(one.loss, ".4f"), *_difference(one.difference, break_at)])
    names = [*(["size", "FLOPs"] if several else []), "variant", "rho", "val_loss", "difference", "p", "pairs"]
    name = 2 if several else 0
    return _table(names, rows, left=name + 1, fold=(name,), title="Variants against the first, paired by seed")


def _layers_table(fits: SweepFits, break_at: str) -> "Table":
    rows: list[list[object]] = []
    for one in fits.layers:
        place = ", ".join([one.size, format_flops(one.budget_flops), *([one.others] if one.others else [])])
        layers = ", ".join(str(layer) for layer in one.layers)
        rows.append([place, layers, format_rho(one.rho), number(one.loss, ".4f"), *_difference(one.difference, break_at)])
    names = ["size, FLOPs", "layers", "rho", "val_loss", "vs mean of single layers", "p", "pairs"]
    return _table(names, rows, left=2, fold=(0,), title="Layers that have the memory")
