"""Does the slope of the best rho over budgets keep its promise? Sweeps of several budgets are made up from known curves and fitted.

`python -m engram.fitting.drift_calibration` prints the table of docs/fitting.md.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engram.fitting import made_up as single
from engram.fitting.drift import fit_drift
from engram.fitting.optimum import fit_allocation
from engram.fitting.results import Interval, Observations

_FINE = np.linspace(0, 1, 2001)

Path = Callable[[float], float]
"""Of a number of decades from the middle budget."""


@dataclass(frozen=True)
class Family:
    """True curves over rho whose lowest point is where one wants it."""

    name: str
    curve: Callable[[np.ndarray, float], np.ndarray]
    """Of rho and the lowest point."""
    middle: float
    """Lowest point at the middle budget."""
    gain: Path = lambda decades: 1.0
    """Height, as a multiple of that at the middle budget."""
    bend: float = 0.0
    """Movement that grows with the square of the decades, on top of the slope."""
    step: float = 0.0
    """Movement that comes at once, at the middle."""
    noise: tuple[float, float] = (1.0, 1.0)
    """Factors of the trials' noise at the lowest and at the highest rho."""

    def _best(self, decades: float, slope: float) -> float:
        return self.middle + slope * decades + self.bend * decades**2 + self.step * (decades > 0.01)

    def at(self, rho: np.ndarray, decades: float, slope: float) -> np.ndarray:
        """Loss over the lowest, for a height of 1 at the middle budget."""
        best = self._best(decades, slope)
        values, middle = self.curve(_FINE, best), self.curve(_FINE, self.middle)
        inside = 0 < middle.argmin() < len(_FINE) - 1
        height = middle[-1] - middle.min() if inside else np.ptp(middle)
        scaled: np.ndarray = self.gain(decades) * (self.curve(rho, best) - values.min()) / (height or 1.0)
        return scaled

    def lowest(self, decades: float, slope: float) -> float:
        """rho at which the true curve is lowest."""
        return float(_FINE[self.at(_FINE, decades, slope).argmin()])


def _two(left: float, power: float) -> Callable[[np.ndarray, float], np.ndarray]:
    """Of one shape around the lowest point, wherever that is."""
    return lambda rho, best: np.where(rho < best, left, 1.0) * np.abs(rho - best) ** power


def _inside(make: Callable[[float], single.Curve]) -> Callable[[np.ndarray, float], np.ndarray]:
    """Of curves whose lowest point must be inside."""
    return lambda rho, best: make(float(np.clip(best, 0.01, 0.99)))(rho)


FAMILIES = (
    Family("parabola", _two(1, 2), 0.5),
    Family("parabola 0.3", _two(1, 2), 0.3),
    Family("lopsided 0.6", _two(0.3, 2), 0.6),
    Family("lopsided 0.4", _two(3, 2), 0.4),
    Family("stretched 0.7", _inside(lambda best: single._two_sided(best, 0.6)), 0.7),
    Family("quartic", _two(1, 4), 0.5),
    Family("lopsided quartic", _two(0.4, 4), 0.6),
    Family("power walls", _inside(lambda best: single._walls(best, 0.5, 0.1, 0.05)), 0.5),
    Family("log walls", _inside(lambda best: single._walls(best, 0.05, 0.05, 0.05)), 0.55),
    Family("wall stays 0.6", _inside(lambda best: single._upper_wall(best, 0.15)), 0.6),
    Family("wall stays 0.4", lambda rho, best: 0.3 * (rho - best) ** 2 + 0.3 * np.maximum(0, rho - 0.85) ** 2 / 0.15**2, 0.4),
    Family("corner 0.5", _two(1, 1), 0.5),
    Family("lopsided corner", _two(0.3, 1), 0.65),
    Family("parabola, gain shrinks", _two(1, 2), 0.5, lambda decades: 10 ** (-0.2 * decades)),
    Family("lopsided, gain grows", _two(0.4, 2), 0.55, lambda decades: 10 ** (0.25 * decades)),
    Family("corner, gain shrinks", _two(0.6, 1), 0.45, lambda decades: 10 ** (-0.2 * decades)),
    Family("parabola, bent path", _two(1, 2), 0.45, bend=0.08),
    Family("lopsided, at once", _two(0.5, 2), 0.45, step=0.12),
    Family("parabola 0.9", _two(1, 2), 0.9),
    Family("stretched 0.95", _inside(lambda best: single._two_sided(best, 1.5)), 0.95),
    Family("stretched 0.1", _inside(lambda best: single._two_sided(best, 0.3)), 0.1),
    Family("corner 0.9", _two(1, 1), 0.9),
    Family("shallow 0.7", _inside(lambda best: single._two_sided(best, 0.15)), 0.7),
    Family("to 0", lambda rho, best: rho + 0 * best, 0.0),
    Family("to 1", lambda rho, best: np.exp(-rho / 0.25) + 0 * best, 1.0, lambda decades: 10 ** (-0.2 * decades)),
    Family("flat", lambda rho, best: 0 * rho, 0.5),
    Family("parabola, noise x 3 at 1", _two(1, 2), 0.5, noise=(1.0, 3.0)),
    Family("lopsided, noise x 3 at 1", _two(0.3, 2), 0.6, noise=(1.0, 3.0)),
)


@dataclass(frozen=True)
class Design:
    """How many trials, and how alike."""

    n_seeds: int = 3
    n_budgets: int = 5
    correlation: float = 0.0
    """Of the noise of trials of one rho and seed at neighbouring budgets."""

    @property
    def decades(self) -> np.ndarray:
        """Half a decade between two budgets, counted from the middle, [B]."""
        return (np.arange(self.n_budgets) - (self.n_budgets - 1) / 2) * 0.5


DESIGNS = (Design(3, 5), Design(3, 5, 0.5), Design(1, 5, 0.5), Design(2, 4, 0.5), Design(3, 3))
AHEAD = 3.0
"""Factor beyond the last budget at which the best rho is foretold."""


def synthesize(family: Family, slope: float, design: Design, rng: np.random.Generator) -> tuple[list[Observations], float]:
    """Made-up sweeps at all budgets, and the height of their curves at the middle one, nats per token.

    Rhos, heights, noise and documents are as in `made_up.synthesize`. Documents, their preference for one end of
    rho, and the effects of seeds are common to all budgets; each budget changes the documents' preference somewhat.
    """
    rhos = np.array(single.GRIDS[rng.integers(len(single.GRIDS))], dtype=float)
    height, noise = rng.uniform(0.02, 0.1), rng.uniform(0.005, 0.012)
    n_documents = int(np.exp(rng.uniform(np.log(200), np.log(2000))))
    n_tokens = np.clip(np.exp(rng.normal(6, 1, n_documents)), 20, 4096).round()
    x = np.repeat(rhos, design.n_seeds)
    seed = np.tile(np.arange(design.n_seeds), len(rhos))
    ends = np.where(x == rhos[0], family.noise[0], np.where(x == rhos[-1], family.noise[1], 1.0))
    of_seed = rng.normal(0, 0.01, design.n_seeds)
    hard, liking = rng.normal(0, 0.5, n_documents), rng.normal(0, 0.08, n_documents)
    of_documents = rng.uniform(0.01, 0.06)
    error = rng.normal(0, 1, len(x))
    made = []
    for at in design.decades:
        loss = 3.2 + height * family.at(x, at, slope) + of_seed[seed] + noise * ends * error
        likes = (x[:, None] - 0.5) * (liking + rng.normal(0, 0.03, n_documents))
        loss = loss[:, None] + hard + likes + rng.normal(0, of_documents, (len(x), n_documents))
        made.append(Observations(x, seed, loss * n_tokens, n_tokens))
        error = design.correlation * error + np.sqrt(1 - design.correlation**2) * rng.normal(0, 1, len(x))
    return made, height


@dataclass(frozen=True)
class Row:
    """Results for one family, design and slope, mostly as shares of the sweeps."""

    family: Family
    design: Design
    slope: float
    n_sweeps: int
    covered: float
    """The slope; NaN where every rho is equal."""
    shown: float
    """A movement."""
    forecast_covered: float
    width: float
    """Mean width of the slope's interval."""
    forecast_width: float
    tilt_covered: float
    """Change of the least-squares slope of the true curve over the measured rhos."""
    seconds: float
    """Mean seconds of a fit."""


def coverage(
    n_sweeps: int,
    designs: Sequence[Design] = DESIGNS,
    slopes: Sequence[float] = (0.0, 0.12),
    families: Sequence[Family] = FAMILIES,
    replicates: int = 400,
    start: int = 0,
) -> list[Row]:
    """Fit `n_sweeps` made-up sweeps of every family, design and slope; `start` seeds the random numbers."""
    rows = []
    for design in designs:
        of_design = [design.n_seeds, design.n_budgets, round(100 * design.correlation)]
        for slope in slopes:
            for index, family in enumerate(families):
                rng = np.random.default_rng([start, *of_design, index, round(1000 * abs(slope)), int(slope < 0)])
                seen = [_judged(family, slope, design, replicates, rng, sweep) for sweep in range(n_sweeps)]
                covered, *others = np.mean(seen, axis=0).tolist()
                flat = not np.ptp(family.at(_FINE, 0.0, 0.0))
                rows.append(Row(family, design, slope, n_sweeps, float("nan") if flat else covered, *others))
    return rows


def _judged(family: Family, slope: float, design: Design, replicates: int, rng: np.random.Generator, number: int) -> tuple[float, ...]:
    curves, height = synthesize(family, slope, design, rng)
    fits = [fit_allocation(curve, replicates=200, seed=number) for curve in curves]
    began = time.perf_counter()
    drift = fit_drift((10 ** (13 + design.decades)).tolist(), curves, fits, replicates=replicates, seed=number)
    seconds = time.perf_counter() - began
    if drift is None:
        raise AssertionError("made-up sweeps have curves")
    ahead = float(design.decades[-1] + np.log10(AHEAD))
    forecast = drift.forecast(10 ** (13 + ahead))
    rhos = np.unique(curves[0].x)
    lowest = [family.lowest(at, slope) for at in design.decades]
    leaning = [np.polyfit(rhos, family.at(rhos, at, slope), 1)[0] for at in design.decades]
    true_slope, true_tilt = (float(np.polyfit(design.decades, of, 1)[0]) for of in (lowest, leaning))
    return (
        _holds(drift.slope, true_slope),
        float(drift.moves != "not shown"),
        _holds(forecast, family.lowest(ahead, slope)),
        drift.slope.high - drift.slope.low,
        forecast.high - forecast.low,
        _holds(drift.tilt, true_tilt * height),
        seconds,
    )


def _holds(found: Interval, true: float) -> float:
    return float(found.low - 1e-9 <= true <= found.high + 1e-9)


def table(rows: Sequence[Row]) -> str:
    """Two Markdown tables: slope covered / movement shown / forecast covered by family, design and slope, in per cent, and a summary."""
    heads = list(dict.fromkeys((row.design, row.slope) for row in rows))
    lines = [
        "| curve | " + " | ".join(f"{_words(design)}, {slope:+.2f}" for design, slope in heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for family in dict.fromkeys(row.family for row in rows):
        mine = {(row.design, row.slope): row for row in rows if row.family is family}
        cells = [" / ".join(_percent(share) for share in (row.covered, row.shown, row.forecast_covered)) for row in mine.values()]
        lines.append(f"| {family.name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| sweeps | slope covered | movement shown | forecast covered | tilt covered | slope width | forecast width |",
        "|---" * 7 + "|",
    ]
    for head in heads:
        lines.append(_summary(f"{_words(head[0])}, {head[1]:+.2f}", [row for row in rows if (row.design, row.slope) == head]))
    lines.append(_summary("all", rows))
    return "\n".join(lines)


def _words(design: Design) -> str:
    alike = f", alike {design.correlation:g}" if design.correlation else ""
    return f"{design.n_seeds} seed{'s' if design.n_seeds > 1 else ''}, {design.n_budgets} budgets{alike}"


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.0f}"


def _summary(name: str, rows: Sequence[Row]) -> str:
    covered = np.nanmean([row.covered for row in rows])
    others = np.mean([(row.shown, row.forecast_covered, row.tilt_covered, row.width, row.forecast_width) for row in rows], axis=0)
    shares = " | ".join(f"{share:.1%}" for share in (covered, *others[:3]))
    return f"| {name} | {shares} | {others[3]:.2f} | {others[4]:.2f} |"


def main() -> None:
    """Count, and print the tables."""
    parser = argparse.ArgumentParser(description="Coverage of the slope of the best rho over budgets, in made-up sweeps.")
    parser.add_argument("--sweeps", type=int, default=20, help="for each curve, design and slope")
    parser.add_argument("--slopes", type=float, nargs="+", default=[0.0, 0.12], help="true movements of the best rho per tenfold budget")
    parser.add_argument("--designs", type=int, nargs="+", default=list(range(len(DESIGNS))), help="which of the designs, from 0")
    parser.add_argument("--start", type=int, default=0, help="seeds the random numbers")
    options = parser.parse_args()
    rows = coverage(options.sweeps, [DESIGNS[i] for i in options.designs], options.slopes, start=options.start)
    print(table(rows))
    print(f"\n{1000 * np.mean([row.seconds for row in rows]):.0f} ms for a fit")


if __name__ == "__main__":
    main()
