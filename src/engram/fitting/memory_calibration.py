"""Do the bands of memory laws keep their promise? Sweeps are made up from known curves and fitted, and coverage is counted.

`python -m engram.fitting.memory_calibration` prints the table of docs/fitting.md.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engram.fitting import made_up
from engram.fitting.memory_forms import BEYOND
from engram.fitting.memory_law import fit_memory
from engram.fitting.results import MemoryFit, Observations

_LEVEL = 3.2
"""Loss at the fewest slots, nats, less that of documents."""
_SEED_SD = 0.01
_WITNESSES = 60
"""Further seeds whose mean loss says what the documents of a sweep are like: to 0.0013 nats."""

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Law:
    """A true curve: change of loss at so many decades beyond the fewest slots; 0 there."""

    name: str
    curve: Curve
    nats: tuple[float, float] = (0.05, 0.25)
    """Range of the factor of the curve."""
    noise: tuple[float, float] = (1.0, 1.0)
    """Factors of the trials' noise at the fewest and at the most slots."""
    slope: float | None = None
    """Where the law is log-linear, of the curve, per decade."""
    exponent: float | None = None
    """Where it is a power law."""
    asymptote: float = 0.0
    """Where it is a power law, of the curve."""


def _power(exponent: float) -> Law:
    """Falls by 1 over three decades, towards an offset."""
    whole = 1 - 10 ** (-3 * exponent)
    return Law(f"power {exponent:g}", lambda d: (10 ** (-exponent * d) - 1) / whole, exponent=exponent, asymptote=-1 / whole)


def _no_offset(exponent: float) -> Law:
    """All of the loss is the power law."""
    return Law(
        f"power {exponent:g}, no offset",
        lambda d: 10 ** (-exponent * d) - 1,
        nats=(_LEVEL, _LEVEL),
        exponent=exponent,
        asymptote=-1,
    )


def _logistic(center: float, width: float) -> Curve:
    return lambda d: 1 / (1 + np.exp(center / width)) - 1 / (1 + np.exp((center - d) / width))


def _broken(knot: float, first: float, last: float) -> Curve:
    """Straight, with another slope from `knot` on."""
    return lambda d: -first * np.minimum(d, knot) - last * np.maximum(d - knot, 0)


_LOG_LINEAR = Law("log-linear", lambda d: -d / 3, slope=-1 / 3)
_FLAT = Law("flat", lambda d: 0 * d, slope=0.0)
_HARD = Law("hard floor", lambda d: -np.minimum(d / 1.6, 1))
_BEND = Law("bends up", _broken(1.3, 1 / 1.3, -0.25))

LAWS = (
    _LOG_LINEAR,
    _FLAT,
    *(_power(exponent) for exponent in (0.05, 0.15, 0.3, 0.6, 1.0)),
    *(_no_offset(exponent) for exponent in (0.05, 0.3, 1.0)),
    _HARD,
    Law("soft floor", lambda d: (np.logaddexp(-7.5 * d, -12) - np.logaddexp(0, -12)) / 12),
    _BEND,
    Law("parabola", lambda d: (d / 1.4 - 1) ** 2 - 1),
    Law("two-slope, steep first", _broken(1.2, 0.5, 0.22)),
    Law("two-slope, steep last", _broken(1.2, 0.25, 0.39)),
    Law("broken power", lambda d: 10 ** (-0.6 * np.minimum(d, 1.2) - 0.15 * np.maximum(d - 1.2, 0)) - 1),
    Law("logistic at 1.2", _logistic(1.2, 0.25)),
    Law("logistic at 2", _logistic(2.0, 0.35)),
    *(
        replace(law, name=f"{law.name}, noise x 3 {end}", noise=noise)
        for law in (_LOG_LINEAR, _FLAT, _HARD, _BEND)
        for end, noise in (("at fewest", (3.0, 1.0)), ("at most", (1.0, 3.0)))
    ),
)
"""Curves of the benchmark."""


@dataclass(frozen=True)
class Truth:
    """What a made-up sweep was made from."""

    loss: Curve
    """Mean over all seeds on its documents, nats per token, at any number of slots."""
    per_tenfold: float
    """Change of loss per decade over the measured range."""
    height: float
    """Factor of the law's curve, nats."""
    level: float
    """Loss at the fewest slots."""


def synthesize(law: Law, n_seeds: int, rng: np.random.Generator) -> tuple[Observations, Truth]:
    """A made-up sweep and what is true of it.

    Trials and documents are those of `made_up.synthesize` with a flat curve, from the quietest 0.6 times as noisy: own noise of 0.003
    to 0.012 nats, seeds' effects of 0.01. Four to eight numbers of slots cover 1.5 to 3 decades. As in engramctl, what is hard about a
    document for all trials alike is evened out (`engramctl.findings.losses`).
    """
    flat = made_up.Shape("flat", np.zeros_like, None, noise=law.noise)
    made, _ = made_up.synthesize(flat, n_seeds + _WITNESSES, rng)
    rhos = np.unique(made.x)
    chosen = rhos[np.linspace(0, len(rhos) - 1, min(int(rng.integers(4, 9)), len(rhos))).round().astype(int)]
    quiet = rng.uniform(0.6, 1)
    span, first, height = rng.uniform(1.5, 3), 10 ** rng.uniform(3, 4), rng.uniform(*law.nats)
    decades = np.linspace(0, span, len(chosen))

    used = np.isin(made.x, chosen)
    loss = _LEVEL + quiet * (made.loss_sum[used] / made.n_tokens - _LEVEL)
    place, seed = decades[np.searchsorted(chosen, made.x[used])], made.seed[used]
    witness = seed >= n_seeds
    level = float((loss[witness] @ made.n_tokens).mean() / made.n_tokens.sum())
    loss, place, seed = loss[~witness], place[~witness], seed[~witness]
    # Effects of seeds were made quieter with all else
    loss = loss + (height * law.curve(place) + np.sqrt(1 - quiet**2) * rng.normal(0, _SEED_SD, n_seeds)[seed])[:, None]
    hardness = loss.mean(axis=0)
    loss = loss - hardness + hardness @ made.n_tokens / made.n_tokens.sum()
    per_tenfold = height * float(law.curve(np.array([span]))[0]) / span
    truth = Truth(lambda x: level + height * law.curve(np.log10(x / first)), per_tenfold, height, level)
    return Observations(first * 10**place, seed, loss * made.n_tokens, made.n_tokens), truth


@dataclass(frozen=True)
class Row:
    """Results for one law and number of seeds: shares of the sweeps, and mean widths in nats."""

    law: Law
    n_seeds: int
    inside: float
    """Mean share of the measured range where the band covers the true curve."""
    beyond: float
    """At the band's end, `BEYOND` times the most slots measured."""
    per_tenfold: float
    slope: float
    """NaN where the law is not log-linear."""
    exponent: float
    """NaN where it is no power law."""
    offset: float
    width_inside: float
    width_beyond: float
    width_per_tenfold: float
    seconds: float
    """Mean seconds of a fit."""


def coverage(
    n_sweeps: int, seeds: Sequence[int] = (1, 2, 3, 4, 5), laws: Sequence[Law] = LAWS, replicates: int = 400, start: int = 0
) -> list[Row]:
    """Fit `n_sweeps` made-up sweeps of every law and number of seeds; `start` seeds the random numbers."""
    return [_row(law, n, n_sweeps, replicates, np.random.default_rng([start, index, n])) for n in seeds for index, law in enumerate(laws)]


def _row(law: Law, n_seeds: int, n_sweeps: int, replicates: int, rng: np.random.Generator) -> Row:
    seen = []
    for number in range(n_sweeps):
        observations, truth = synthesize(law, n_seeds, rng)
        began = time.perf_counter()
        fit = fit_memory(observations, replicates=replicates, seed=number)
        seen.append((*_judge(fit, law, truth), time.perf_counter() - began))
    return Row(law, n_seeds, *np.mean(seen, axis=0).tolist())


def _judge(fit: MemoryFit, law: Law, truth: Truth) -> tuple[float, ...]:
    band = fit.band
    loss, width, inside = truth.loss(band.x), band.high - band.low, band.x <= fit.measured[1]
    covered = (band.low <= loss) & (loss <= band.high)

    def parameter(form: str, name: str, value: float | None) -> float:
        if value is None:
            return float("nan")
        interval = fit.parameters[form][name]
        return float(interval.low <= value <= interval.high)

    is_power = law.exponent is not None
    return (
        float(covered[inside].mean()),
        float(covered[-1]),
        float(fit.per_tenfold.low <= truth.per_tenfold <= fit.per_tenfold.high),
        parameter("log-linear", "slope", None if law.slope is None else law.slope * truth.height),
        parameter("power-law", "exponent", law.exponent),
        parameter("power-law", "offset", truth.level + truth.height * law.asymptote if is_power else None),
        float(width[inside].mean()),
        float(width[-1]),
        fit.per_tenfold.high - fit.per_tenfold.low,
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown: by law, coverage of the curve for each number of seeds and all results together; then the same by number of seeds."""
    seeds = sorted({row.n_seeds for row in rows})
    names = ["law", *(f"{n} seed{'s' if n > 1 else ''}" for n in seeds), *_RESULTS]
    lines = [_line(names), "|---" * len(names) + "|"]
    for law in dict.fromkeys(row.law for row in rows):
        mine = [row for row in rows if row.law is law]
        lines.append(_line([law.name, *(f"{row.inside:.0%} / {row.beyond:.0%}" for row in mine), *_results(mine)]))
    lines += ["", _line(["sweeps", *_RESULTS]), "|---" * (1 + len(_RESULTS)) + "|"]
    lines += [_line([names[1 + i], *_results([row for row in rows if row.n_seeds == n])]) for i, n in enumerate(seeds)]
    return "\n".join([*lines, _line(["all", *_results(rows)])])


_RESULTS = (
    "inside", f"at {BEYOND} x", "for 10 x slots", "slope", "exponent", "offset",
    "width inside", f"width at {BEYOND} x", "width for 10 x",
)  # fmt: skip


def _results(rows: Sequence[Row]) -> list[str]:
    """Means over rows with the same number of sweeps each, of those that have the parameter."""

    def mean(values: Sequence[float]) -> float:
        known = [value for value in values if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")

    shares = ([getattr(row, name) for row in rows] for name in ("inside", "beyond", "per_tenfold", "slope", "exponent", "offset"))
    widths = ([getattr(row, f"width_{name}") for row in rows] for name in ("inside", "beyond", "per_tenfold"))
    cells = [f"{mean(share):.1%}" for share in shares] + [f"{mean(width):.4f}" for width in widths]
    return [cell.replace("nan%", "-") for cell in cells]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=100, help="made-up sweeps for each law and number of seeds (default 100)")
    parser.add_argument("--replicates", type=int, default=400, help="replicates of each fit (default 400)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="numbers of seeds (default 1 2 3 4 5)")
    parser.add_argument("--start", type=int, default=0, help="seed of the random numbers (default 0)")
    options = parser.parse_args()
    rows = coverage(options.sweeps, options.seeds, replicates=options.replicates, start=options.start)
    print(table(rows))
    print(f"\nA fit took {np.mean([row.seconds for row in rows]):.3f} s on average.")


if __name__ == "__main__":
    main()
