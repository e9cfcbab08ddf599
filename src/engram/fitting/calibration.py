"""Do the intervals of `engram.fitting` keep their promise? Sweeps are made up from known curves and fitted, and coverage is counted.

`python -m engram.fitting.calibration` prints the table of docs/fitting.md.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engram.fitting.made_up import SHAPES, Shape, synthesize
from engram.fitting.optimum import fit_allocation
from engram.fitting.results import AllocationFit, Observations

_RANGE_POINTS = 50
"""Rhos at which the true cost of a range is looked up."""


@dataclass(frozen=True)
class Row:
    """Results for one combination of shape and seeds, mostly as shares of the sweeps."""

    shape: Shape
    n_seeds: int
    n_sweeps: int
    rho_covered: float
    """NaN where several rhos are the best."""
    smooth_covered: float
    """The same for the interval that takes the curve to be smooth."""
    gain_covered: float
    rho_width: float
    """Mean width of the interval of rho_star."""
    smooth_width: float
    """Of that which takes it to be smooth."""
    gain_width: float
    """Nats."""
    claimed: float
    """Share of sweeps for which an interior minimum was claimed."""
    near_sure: float
    """Mean confidence that a rho of the range near the best costs no more than the margin."""
    near_held: float
    """Mean share of the range that costs no more."""
    worst_held: float
    """Share of sweeps in which no rho of the range costs more than it said."""
    seconds: float
    """Mean seconds of a fit."""


_JUDGED = (
    *("rho_covered", "smooth_covered", "gain_covered", "rho_width", "smooth_width", "gain_width", "claimed"),
    *("near_sure", "near_held", "worst_held"),
)
"""Fields of a row that are means over its sweeps."""


def coverage(
    n_sweeps: int, seeds: Sequence[int] = (1, 2, 3, 4, 5), shapes: Sequence[Shape] = SHAPES, replicates: int = 300, start: int = 0
) -> list[Row]:
    """Fit `n_sweeps` made-up sweeps of every shape and number of seeds; `start` seeds the random numbers."""
    return [
        _row(shape, n, n_sweeps, replicates, np.random.default_rng([start, index, n])) for n in seeds for index, shape in enumerate(shapes)
    ]


def _row(shape: Shape, n_seeds: int, n_sweeps: int, replicates: int, rng: np.random.Generator) -> Row:
    seen = []
    seconds = 0.0
    for number in range(n_sweeps):
        observations, height = synthesize(shape, n_seeds, rng)
        began = time.perf_counter()
        fit = fit_allocation(observations, replicates=replicates, seed=number)
        seconds += time.perf_counter() - began
        seen.append(_judge(fit, shape, height))
    shares = dict(zip(_JUDGED, np.mean(seen, axis=0).tolist(), strict=True))
    if shape.optimum is None:
        shares["rho_covered"] = shares["smooth_covered"] = float("nan")
    return Row(shape=shape, n_seeds=n_seeds, n_sweeps=n_sweeps, seconds=seconds / n_sweeps, **shares)


def _judge(fit: AllocationFit, shape: Shape, height: float) -> tuple[float, ...]:
    gain = height * float(shape.curve(np.array([1.0]))[0])
    optimum = -1.0 if shape.optimum is None else shape.optimum
    return (
        float(fit.rho_star.low - 1e-9 <= optimum <= fit.rho_star.high + 1e-9),
        float(fit.rho_smooth.low - 1e-9 <= optimum <= fit.rho_smooth.high + 1e-9),
        float(fit.gain.low - 1e-12 <= gain <= fit.gain.high + 1e-12),
        fit.rho_star.high - fit.rho_star.low,
        fit.rho_smooth.high - fit.rho_smooth.low,
        fit.gain.high - fit.gain.low,
        float(fit.verdict.kind == "interior"),
        *_judge_range(fit, shape, height),
    )


def _judge_range(fit: AllocationFit, shape: Shape, height: float) -> tuple[float, float, float]:
    near = fit.near_best
    if near is None:
        return (float("nan"),) * 3
    costs = height * shape.curve(np.linspace(near.low, near.high, _RANGE_POINTS))
    return near.confidence, float((costs <= near.margin).mean()), float(costs.max() <= near.worst + 1e-12)


def claimed_by_looking(n_sweeps: int, shape: Shape, most_seeds: int = 8, replicates: int = 1000, start: int = 0) -> float:
    """Share of made-up sweeps for which an interior minimum is claimed at some look, if one looks after every seed up to `most_seeds`."""
    claimed = 0
    for number in range(n_sweeps):
        observations, _ = synthesize(shape, most_seeds, np.random.default_rng([start, number]))
        claimed += any(_claims(observations, n, replicates, number) for n in range(1, most_seeds + 1))
    return claimed / n_sweeps


def _claims(observations: Observations, n_seeds: int, replicates: int, seed: int) -> bool:
    kept = observations.seed < n_seeds
    some = Observations(observations.x[kept], observations.seed[kept], observations.loss_sum[kept], observations.n_tokens)
    return fit_allocation(some, replicates=replicates, seed=seed).verdict.kind == "interior"


_SUMMARY = (
    *("rho* covered", "if smooth", "gain covered", "rho* width", "if smooth", "gain width, nats", "interior claimed"),
    *("range said / was near", "cost of range held"),
)


def table(rows: Sequence[Row]) -> str:
    """Two Markdown tables: coverage of rho* / of rho* if smooth / of the gain / claims by shape and seeds, in per cent, and a summary."""
    seeds = sorted({row.n_seeds for row in rows})
    heads = [_seeds(n) for n in seeds]
    lines = [f"| curve | {' | '.join(heads)} |", "|---" * (len(seeds) + 1) + "|"]
    for shape in dict.fromkeys(row.shape for row in rows):
        shares = [(row.rho_covered, row.smooth_covered, row.gain_covered, row.claimed) for row in rows if row.shape is shape]
        cells = [" / ".join(_percent(share) for share in cell) for cell in shares]
        lines.append(f"| {shape.name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| sweeps | {' | '.join(_SUMMARY)} |",
        "|---" * (len(_SUMMARY) + 1) + "|",
    ]
    for n in seeds:
        mine = [row for row in rows if row.n_seeds == n]
        lines.append(_summary(f"minimum inside, {_seeds(n)}", [row for row in mine if row.shape.interior]))
        lines.append(_summary(f"none inside, {_seeds(n)}", [row for row in mine if not row.shape.interior]))
    lines.append(_summary("minimum inside", [row for row in rows if row.shape.interior]))
    lines.append(_summary("none inside", [row for row in rows if not row.shape.interior]))
    lines.append(_summary("all", rows))
    return "\n".join(lines)


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.0f}"


def _summary(name: str, rows: Sequence[Row]) -> str:
    """Means over some of the rows, which all have the same number of sweeps."""
    if not rows:
        return f"| {name} {'| - ' * len(_SUMMARY)}|"
    covered = [(row.rho_covered, row.smooth_covered) for row in rows if row.shape.optimum is not None]
    rho, smooth = (f"{share:.1%}" for share in np.mean(covered, axis=0)) if covered else "--"
    gain, claimed = np.mean([row.gain_covered for row in rows]), np.mean([row.claimed for row in rows])
    rho_width, smooth_width, gain_width = np.mean([(row.rho_width, row.smooth_width, row.gain_width) for row in rows], axis=0)
    sure, held, worst = np.mean([(row.near_sure, row.near_held, row.worst_held) for row in rows], axis=0)
    widths = f"{rho_width:.2f} | {smooth_width:.2f} | {gain_width:.3f}"
    return f"| {name} | {rho} | {smooth} | {gain:.1%} | {widths} | {claimed:.1%} | {sure:.0%} / {held:.0%} | {worst:.1%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=200, help="made-up sweeps for each shape and number of seeds (default 200)")
    parser.add_argument("--replicates", type=int, default=300, help="replicates of each fit (default 300)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="numbers of seeds (default 1 2 3 4 5)")
    parser.add_argument("--start", type=int, default=0, help="seed of the random numbers (default 0)")
    parser.add_argument("--json", type=Path, help="file for the rows, as a list of objects")
    parser.add_argument("--looks", type=int, default=0, help="made-up sweeps at which to look after every seed (default 0)")
    options = parser.parse_args()
    rows = coverage(options.sweeps, options.seeds, replicates=options.replicates, start=options.start)
    print(table(rows))
    if options.json:
        content = [{**vars(row), "shape": row.shape.name} for row in rows]
        options.json.write_text(json.dumps(content, indent=1).replace("NaN", "null"))
    for shape in (shape for shape in SHAPES if options.looks and not shape.interior):
        print(f"{shape.name}: an interior minimum claimed at some of eight looks in {claimed_by_looking(options.looks, shape):.1%}")
    print(f"\nA fit took {np.mean([row.seconds for row in rows]):.3f} s on average.")


if __name__ == "__main__":
    main()
