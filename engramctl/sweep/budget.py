"""From a wall time for a whole sweep to a budget in FLOPs for each trial."""

import heapq
import math
from collections.abc import Sequence

from engram.config.trial import TrialConfig
from engram.errors import UserError
from engram.training.speed import Speed

SAFETY = 0.85
"""Share of the wall time that is planned for: speeds vary, and the last trials of a sweep leave cores idle."""


def makespan(durations: Sequence[float], workers: int) -> float:
    """Seconds until the last trial ends when `workers` take the trials in order as they become free."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def fit_wall_time(seconds: float, trials: Sequence[TrialConfig], speeds: dict[str, Speed], workers: int) -> float:
    """The largest budget, in FLOPs per trial to two significant digits, with which all trials end within `seconds`.

    Args:
        seconds: wall time left for training.
        trials: the sweep's trials at any budget, to which their steps are in proportion.
        speeds: the slowest speed of each size.
        workers: trials at a time.

    Raises UserError when there isn't time for a single step of each trial.
    """

    def total(budget: float) -> float:
        durations = [speeds[t.size].trial_s(int(budget / (t.budget_flops / t.train.steps)), t.train.n_validations) for t in trials]
        return makespan(durations, workers)

    smallest = max(t.budget_flops / t.train.steps for t in trials)
    room = SAFETY * seconds
    if total(smallest) > room:
        least = total(smallest) / SAFETY
        raise UserError(f"wall time of {seconds:.0f} s is too short: {len(trials)} trials of one step each take about {least:.0f} s here")
    low, high = smallest, smallest * 2
    while total(high) <= room:
        low, high = high, high * 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) <= room else (low, middle)
    unit = 10.0 ** (math.floor(math.log10(low)) - 1)
    return max(float(f"{math.floor(low / unit) * unit:.1e}"), smallest)  # rounded down
