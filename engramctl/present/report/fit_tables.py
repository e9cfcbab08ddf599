"""A sweep's verdicts and fitted numbers as sentences and tables, and as the flat table that is saved."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from engramctl.findings.fits import SweepFits
from engramctl.present.format import format_rho, is_missing, series_name
from engramctl.present.report.content import NO_VALUE, ReportTable, number
from engramctl.present.verdicts import answers

if TYPE_CHECKING:
    from engram.fitting.results import AllocationFit, Band, Interval
    from engramctl.findings.losses import SeedDifferences

FIT_COLUMNS = ["fit", "size", "budget_flops", "variant", "rho", "quantity", "unit", "estimate", "low", "high"]
"""Columns of `fit_rows`: which fit of which series, and a number of it with the bounds of its 95 % interval."""


def verdicts(fits: SweepFits) -> list[tuple[str, str]]:
    """Pairs of what a sentence is about, and the sentence."""
    found = [(series_name(*key), text) for key, text in answers(fits)]
    found += [(f"{size}{f', {variant}' if variant else ''}, over the budgets", drift.text) for (size, variant), drift in fits.drift.items()]
    found += [(series_name(*key), fit.text) for key, fit in fits.memory.items()]
    for one in fits.variants:
        if one.difference:
            found.append((f"{one.variant} against {one.reference}, at rho = {one.rho:g}", one.difference.paired.text))
    for layer in fits.layers:
        if layer.difference:
            found.append((f"memory at layers {list(layer.layers)} against the mean of single layers", layer.difference.paired.text))
    return found


def interval_text(interval: "Interval", form: str) -> str:
    """0.38 (0.25 to 0.52); a dash if there is no estimate."""
    if is_missing(interval.estimate):
        return NO_VALUE
    bounds = "" if is_missing(interval.low) else f" ({number(interval.low, form)} to {number(interval.high, form)})"
    return f"{number(interval.estimate, form)}{bounds}"


def fit_tables(fits: SweepFits) -> list[ReportTable]:
    """A table for each kind of fit that the sweep has."""
    tables = []
    if fits.allocation:
        rows = [
            (
                series_name(*key),
                *_near_best(fit),
                fit.form or NO_VALUE,
                interval_text(fit.rho_star, ".2f"),
                interval_text(fit.rho_smooth, ".2f"),
                interval_text(fit.gain, ".4f"),
                interval_text(fit.crossing, ".2f"),
                number(fit.loss_min.estimate, ".4f"),
                number(fit.noise_sd, ".4f"),
                str(fit.n_seeds),
            )
            for key, fit in fits.allocation.items()
        ]
        ranges = ("near the best", "sure if smooth", "at most")
        columns = ("curve", *ranges, "form", "best rho", "if smooth", "gain over rho = 1", "crossing", "lowest loss", "noise", "seeds")
        note = (
            f"Near the best: within {_margin(fits)} nats per token of it, as fitted; how sure that is of a rho of the range if the curve is"
            " smooth; and what none of the range costs more than, at 95 %, for any convex curve. The interval of the best rho takes the"
            " curve to be convex, no more; the next one also to be smooth. Crossing: the rho below the best one where the curve is as high"
            " as at rho = 1 again, if it rises so far. Noise: standard deviation of one trial, the common effect of its seed taken out."
        )
        tables.append(ReportTable("Fits over rho", columns, rows, 2, note))
        costs = [
            (series_name(*key), format_rho(rho), number(loss, ".4f"), f"{number(low, '.4f')} to {number(high, '.4f')}")
            for key, fit in fits.allocation.items()
            if fit.near_best
            for rho, loss, low, high in zip(*_columns(fit.near_best.cost), strict=True)
        ]
        if costs:
            title = "What a rho costs more than the best, nats per token"
            tables.append(ReportTable(title, ("curve", "rho", "cost", "95 % interval"), costs, 1))
    if fits.drift:
        drifts = [
            (
                f"{size}{f', {variant}' if variant else ''}",
                interval_text(drift.slope, "+.3f"),
                number(drift.p_change, ".2g"),
                interval_text(drift.tilt, "+.4f"),
                number(drift.p_tilt, ".2g"),
            )
            for (size, variant), drift in fits.drift.items()
        ]
        names = ("over the budgets", "best rho for ten times the budget", "p of any change", "tilt for ten times the budget", "p of tilt")
        about = (
            "All budgets fitted together. p of any change: how often the curve's shape would appear to change this much with the budget if"
            " it did not. Tilt: change of the slope of loss over rho, nats per token; below zero, experts gain."
        )
        tables.append(ReportTable("Drift", names, drifts, 1, about))
    if fits.memory:
        laws = [
            row
            for key, law in fits.memory.items()
            for row in [
                (series_name(*key), "any form", "", "for 10x slots", interval_text(law.per_tenfold, ".4g")),
                *(
                    (series_name(*key), form, f"{law.probability[form]:.0%}", name, interval_text(value, ".4g"))
                    for form, values in law.parameters.items()
                    for name, value in values.items()
                ),
            ]
        ]
        note = "Parameters of a law are as if it were true; how probable it is among the forms that were averaged stands beside it."
        tables.append(ReportTable("Loss against slots", ("curve", "form", "probability", "parameter", "value"), laws, 4, note))
    compared = [
        (
            f"{one.variant} (rho {one.rho:g})",
            f"{one.reference} (rho {one.reference_rho:g})",
            number(one.loss, ".4f"),
            *_difference(one.difference),
        )
        for one in fits.variants
    ]
    if compared:
        tables.append(ReportTable("Variants", ("variant", "against", "loss", "difference", "p", "seeds"), compared, 2))
    layers = [(str(list(one.layers)), number(one.loss, ".4f"), *_difference(one.difference)) for one in fits.layers]
    if layers:
        tables.append(ReportTable("Layers", ("memory at", "loss", "against the mean of single layers", "p", "seeds"), layers, 1))
    return tables


def _near_best(fit: "AllocationFit") -> tuple[str, str, str]:
    near = fit.near_best
    if near is None:
        return NO_VALUE, NO_VALUE, NO_VALUE
    return f"{near.low:.2f} to {near.high:.2f}", f"{100 * near.confidence:.0f} %", number(near.worst, ".3f")


def _margin(fits: SweepFits) -> str:
    return next((f"{fit.near_best.margin:g}" for fit in fits.allocation.values() if fit.near_best), "a few thousandths")


def _columns(band: "Band") -> tuple[list[float], ...]:
    return band.x.tolist(), band.loss.tolist(), band.low.tolist(), band.high.tolist()


def _difference(difference: "SeedDifferences | None") -> tuple[str, str, str]:
    if difference is None:
        return NO_VALUE, NO_VALUE, "0"
    paired = difference.paired
    return interval_text(paired.difference, "+.4f"), number(paired.p_value, ".2g"), str(paired.n_pairs)


def fit_rows(fits: SweepFits) -> pd.DataFrame:
    """Every fitted number, one per row (FIT_COLUMNS): what `fits.parquet` holds."""
    from engram.fitting.results import Interval

    rows: list[dict[str, Any]] = []

    def add(fit: str, size: str, budget: float, variant: str, rho: float, numbers: "dict[str, tuple[str, Interval]]") -> None:
        for quantity, (unit, value) in numbers.items():
            bounds = {"estimate": value.estimate, "low": value.low, "high": value.high}
            names = {"fit": fit, "size": size, "budget_flops": budget, "variant": variant, "rho": rho}
            rows.append({**names, "quantity": quantity, "unit": unit, **bounds})

    nan, loss = float("nan"), "nats/token"
    for key, fit in fits.allocation.items():
        numbers = {
            "rho_star": ("fraction", fit.rho_star),
            "rho_smooth": ("fraction", fit.rho_smooth),
            "gain": (loss, fit.gain),
            "crossing": ("fraction", fit.crossing),
        }
        add("allocation", *key, nan, {**numbers, "loss_min": (loss, fit.loss_min)})
        if near := fit.near_best:
            within = Interval(fit.rho_star.estimate, near.low, near.high)
            worst, sure = Interval(near.worst, nan, nan), Interval(near.confidence, nan, nan)
            of_range = {"near_best": ("fraction", within), "near_best_confidence": ("probability", sure), "near_best_worst": (loss, worst)}
            add("allocation", *key, nan, of_range)
            for rho, *cost in zip(*_columns(near.cost), strict=True):
                add("allocation", *key, rho, {"cost": (loss, Interval(*cost))})
    for key, apart in fits.by_overlap.items():
        for name, fit in (("clean", apart.clean), ("overlapping", apart.overlapping)):
            add(f"allocation, {name} documents", *key, nan, {"rho_star": ("fraction", fit.rho_star), "gain": (loss, fit.gain)})
        add("allocation, overlapping less clean", *key, nan, {"gain": (loss, apart.difference)})
    for (size, variant), drift in fits.drift.items():
        numbers = {
            "slope": ("rho per factor 10 of budget", drift.slope),
            "tilt": ("nats/token per rho and factor 10 of budget", drift.tilt),
        }
        add("drift", size, nan, variant, nan, numbers)
    for key, law in fits.memory.items():
        add("memory", *key, nan, {"per_tenfold": ("nats per factor 10 of slots", law.per_tenfold)})
        for form, parameters in law.parameters.items():
            add(f"memory {form}", *key, nan, {name: ("", value) for name, value in parameters.items()})
    for one in fits.variants:
        if one.difference:
            numbers = {f"less {one.reference}": ("nats/token", one.difference.paired.difference)}
            add("variants", one.size, one.budget_flops, one.variant, one.rho, numbers)
    for layer in fits.layers:
        if layer.difference:
            numbers = {"less the mean of single layers": ("nats/token", layer.difference.paired.difference)}
            add("layers", layer.size, layer.budget_flops, str(list(layer.layers)), layer.rho, numbers)
    return pd.DataFrame(rows, columns=FIT_COLUMNS)
