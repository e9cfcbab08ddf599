"""Curves over rho at all budgets at once: one shape around a lowest point that moves with the logarithm of the budget.

A corner that moves is no sum of fixed curves, so `drift_curves.blended` rounds it off. Here the curve rises on both sides of its lowest
point by a power of the distance, from a corner to a quartic, with heights of the two sides that may change with the budget, and a rough
part beside it. The shape is either carried along, or stretched between ends that keep their heights. Place, movement, power and the rest
are averaged over on a grid, heights and the rough part in closed form.
"""

from dataclasses import dataclass

import numpy as np

from engram.fitting.curves import matern
from engram.fitting.drift_curves import Draws, Errors, Problem, log_sum

_POWERS = (1.0, 1.5, 2.0, 3.0, 4.0)
_HEIGHTS = (0.7, 2.5)
"""Scales of the heights of both sides, as multiples of the range of the measured means."""
_CHANGE = 0.3
"""Change of heights and of the rough part over half the range of budgets, as a share of their scale."""
_ROUGH = (0.03, 0.15)
"""Scale of the rough part, as a multiple of the range of the measured means."""
_ROUGH_LENGTH = 0.3
_NEAREST = 0.05
"""An end is not taken to be nearer to the lowest point than this: what is measured there would count for nothing."""
_PLACES = np.linspace(-0.1, 1.1, 25)
"""Lowest point at the middle budget, as a share of the measured range."""
_MOVES = np.linspace(-0.7, 0.7, 29)
"""Its movement over half the range of budgets."""
_LIKELY_MOVE = 0.15
"""Scale of the movement before there are measurements (Cauchy)."""
_STEPS = 19
"""Points of the finer grids of places and moves where those above are likely."""
_NEGLIGIBLE = 1e-4


@dataclass(frozen=True)
class _Base:
    """What does not depend on the place."""

    size: float
    """Of the rough part, nats."""
    noise: float
    log: float
    """Logarithm of its probability and of the norm."""
    contrast: np.ndarray
    """[n, n]"""


@dataclass(frozen=True)
class _Cells:
    """Curves as columns of four heights: left, right, and the change of both."""

    place: np.ndarray
    move: np.ndarray
    power: np.ndarray
    stretched: np.ndarray

    def columns(self, unit: np.ndarray, at: np.ndarray) -> np.ndarray:
        """At rhos `unit` (shares of the range) and budgets `at` (-1 to 1), [cells, points, 4]."""
        place, power = self.place[:, None], self.power[:, None]
        lowest = place + self.move[:, None] * at
        anchor = np.where(self.stretched[:, None], lowest, place)
        left = np.maximum(lowest - unit, 0) / np.maximum(anchor, _NEAREST)
        right = np.maximum(unit - lowest, 0) / np.maximum(1 - anchor, _NEAREST)
        rises = np.stack([left**power, right**power], axis=-1)
        return np.concatenate([rises, _CHANGE * at[:, None] * rises], axis=-1)


def moving(problem: Problem, errors: Errors, rng: np.random.Generator) -> Draws:
    """Draw one curve for each replicate and wanted budget."""
    s = problem.stack
    rough = matern(np.concatenate([problem.unit, problem.grid]), _ROUGH_LENGTH)
    basis, on_grid = rough[: len(problem.unit)][s.place], rough[len(problem.unit) :]
    bases = _bases(problem, basis)
    place, move = (values.ravel() for values in np.meshgrid(_PLACES, _MOVES, indexing="ij"))
    logs = _weigh(problem, bases, place, move)
    likely = np.exp(logs - logs.max()).sum(axis=0).reshape(len(_PLACES), len(_MOVES))
    places, moves = _closer(_PLACES, likely.sum(axis=1)), _closer(_MOVES, likely.sum(axis=0))
    steps = places[1] - places[0], moves[1] - moves[0]
    place, move = (values.ravel() for values in np.meshgrid(places, moves, indexing="ij"))
    # Of a density over places and moves, so that the grid's fineness does not count
    logs = _weigh(problem, bases, place, move) + np.log(steps[0] * steps[1] / np.ptp(_PLACES))
    evidence = log_sum(logs)
    weight = np.exp(logs - evidence)
    count = len(errors.documents)
    kind, where = np.unravel_index(rng.choice(weight.size, count, p=weight.ravel() / weight.sum()), weight.shape)
    power, stretched, base, height = np.unravel_index(kind, (len(_POWERS), 2, len(bases), len(_HEIGHTS)))
    cells = _Cells(
        place[where] + (rng.random(count) - 0.5) * steps[0],
        move[where] + (rng.random(count) - 0.5) * steps[1],
        np.array(_POWERS)[power],
        stretched == 1,
    )
    heights = np.array(_HEIGHTS)[height] * problem.height
    lowest = np.empty((count, len(problem.wanted)))
    for one in np.unique(base):
        mine = np.flatnonzero(base == one)
        chosen = _Cells(cells.place[mine], cells.move[mine], cells.power[mine], cells.stretched[mine])
        some = Errors(errors.documents[mine], errors.trials[mine])
        lowest[mine] = problem.lowest(_curves(problem, bases[one], chosen, heights[mine], some, basis, on_grid, rng))
    return Draws(lowest, evidence)


def _bases(problem: Problem, basis: np.ndarray) -> list[_Base]:
    shape = basis @ basis.T * problem.between_points(_CHANGE)
    found = []
    for share in _ROUGH:
        for noise, log in problem.noises():
            size = share * problem.height
            contrast, norm = problem.likelihood(size**2 * shape, noise)
            found.append(_Base(size, noise, log + float(norm), contrast))
    return found


def _weigh(problem: Problem, bases: list[_Base], place: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Logarithm of the density of each kind of curve at each pair of place and move, [kinds, pairs]."""
    s = problem.stack
    found = []
    for power in _POWERS:
        for stretched in (False, True):
            cells = _Cells(place, move, np.full(len(place), power), np.full(len(place), stretched))
            columns = cells.columns(problem.unit[s.place], problem.at[s.budget])
            for base in bases:
                with_columns = base.contrast @ columns
                inner = np.swapaxes(columns, -1, -2) @ with_columns
                onto = s.means @ with_columns
                whole = s.means @ base.contrast @ s.means
                for height in np.array(_HEIGHTS) * problem.height:
                    total = inner + np.eye(4) / height**2
                    left = whole - (onto * np.linalg.solve(total, onto[..., None])[..., 0]).sum(axis=-1)
                    found.append(base.log - 0.5 * (left + np.linalg.slogdet(total)[1] + 8 * np.log(height)))
    prior = -np.log1p((move / _LIKELY_MOVE) ** 2) - np.log(np.pi * _LIKELY_MOVE)
    logs: np.ndarray = np.array(found) + prior - np.log(len(_POWERS) * 2 * len(_ROUGH) * len(_HEIGHTS))
    return logs


def _curves(
    problem: Problem,
    base: _Base,
    cells: _Cells,
    heights: np.ndarray,
    errors: Errors,
    basis: np.ndarray,
    on_grid: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """One curve for each cell, and budget wanted, on the grid, [cells, Z, G]."""
    s = problem.stack
    columns = cells.columns(problem.unit[s.place], problem.at[s.budget])
    sides = heights[:, None] * rng.standard_normal((len(heights), 4))
    coefficients = base.size * problem.free(len(heights), basis.shape[1], _CHANGE, rng)
    expected = np.einsum("nr,mnr->mn", basis, coefficients[:, s.budget]) + (columns @ sides[..., None])[..., 0]
    missing = s.means - errors.documents - base.noise * errors.trials - expected
    with_columns = base.contrast @ columns
    inner = np.swapaxes(columns, -1, -2) @ with_columns + np.eye(4) / (heights**2)[:, None, None]
    onto = np.swapaxes(with_columns, -1, -2) @ missing[..., None]
    pulled = missing @ base.contrast - (with_columns @ np.linalg.solve(inner, onto))[..., 0]
    sides += (heights**2)[:, None] * (np.swapaxes(columns, -1, -2) @ pulled[..., None])[..., 0]
    coefficients += base.size**2 * (problem.alike(_CHANGE) @ problem.pull(basis, pulled))
    curves: np.ndarray = coefficients @ on_grid.T
    for index, at in enumerate(problem.wanted):
        curves[:, index] += (cells.columns(problem.grid, np.full(len(problem.grid), at)) @ sides[..., None])[..., 0]
    return curves


def _closer(values: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """A grid over the values that are likely."""
    seen = np.flatnonzero(likely > _NEGLIGIBLE * likely.max())
    step = values[1] - values[0]
    return np.linspace(values[seen[0]] - step, values[seen[-1]] + step, _STEPS)
