"""Loss against memory slots on a fixed backbone (paper, 3.2): the curve, how far it can be told, and the parameters of two laws."""

import numpy as np

from engram.errors import UserError
from engram.fitting.bootstrap import document_deviations, trial_rng
from engram.fitting.layout import lay_out, without_outliers
from engram.fitting.memory_curves import MemoryPosterior
from engram.fitting.memory_forms import BEYOND
from engram.fitting.memory_noise import memory_noise
from engram.fitting.memory_parameters import memory_parameters
from engram.fitting.optimum import TAILS, interval
from engram.fitting.results import Band, Interval, MemoryFit, Observations

_FEWEST = 3


def fit_memory(observations: Observations, *, replicates: int = 1000, seed: int = 0) -> MemoryFit:
    """Fit loss against x = slots, averaged over the forms of `memory_forms` by their probability.

    A trial far from all others of its slots and seed is left out, and the text says so (`layout.without_outliers`).

    Args:
        observations: with x = slots.
        replicates: curves that are drawn.
        seed: of the draws.

    Raises UserError with fewer than three different numbers of slots, numbers that are not above zero, or arrays that do not match.
    """
    layout = lay_out(observations)
    if len(layout.x) < _FEWEST or layout.x[0] <= 0:
        raise UserError(
            f"a memory law needs at least three different numbers of slots above 0; there are {', '.join(f'{x:g}' for x in layout.x)}"
        )
    layout, left_out = without_outliers(layout)
    noise = memory_noise(layout)
    posterior = MemoryPosterior(noise)
    rng = trial_rng(layout, seed)
    deviations = document_deviations(layout, replicates, seed)
    curves, center = posterior.draw(deviations, rng), posterior.mean_curve()
    x = posterior.x
    low, high = np.quantile(curves, TAILS, axis=0)
    band = Band(x, center, np.minimum(low, center), np.maximum(high, center))
    measured = (float(layout.x[0]), float(layout.x[-1]))
    decades = np.log10(measured[1] / measured[0])
    ends = np.interp(np.log(measured), np.log(x), np.arange(len(x)))
    fall, falls = ((_at(part, ends[1]) - _at(part, ends[0])) / decades for part in (center[None], curves))
    per_tenfold = interval(float(fall[0]), falls)
    probability = posterior.probabilities()
    parameters = memory_parameters(noise, deviations, rng)
    return MemoryFit(
        form=max(probability, key=lambda name: probability[name]),
        probability=probability,
        cv_error=posterior.cv_errors(),
        per_tenfold=per_tenfold,
        parameters=parameters,
        band=band,
        measured=measured,
        text=_text(per_tenfold, probability, parameters, band, left_out),
    )


def _at(curves: np.ndarray, place: float) -> np.ndarray:
    """Values of curves [B, G] at a place between two points of the grid, [B]."""
    left = min(int(place), curves.shape[1] - 2)
    values: np.ndarray = curves[:, left] + (place - left) * (curves[:, left + 1] - curves[:, left])
    return values


def _text(
    per_tenfold: Interval, probability: dict[str, float], parameters: dict[str, dict[str, Interval]], band: Band, left_out: str
) -> str:
    first, second = sorted(probability, key=lambda name: -probability[name])[:2]
    text = (
        f"Ten times the slots change loss by {per_tenfold.estimate:+.4f} nats ({per_tenfold.low:+.4f} to {per_tenfold.high:+.4f}), "
        f"on average over the measured range. Most probable form: {first} ({probability[first]:.0%}), then {second} "
        f"({probability[second]:.0%})."
    )
    if first == "power-law":
        exponent, offset = parameters["power-law"]["exponent"], parameters["power-law"]["offset"]
        text += (
            f" If that is true, loss falls as slots to the power -{exponent.estimate:.2f} ({exponent.low:.2f} to {exponent.high:.2f}) "
            f"towards {offset.estimate:.3f} nats ({offset.low:.3f} to {offset.high:.3f})."
        )
    text += (
        f" At {BEYOND} times the most slots measured it is {band.loss[-1]:.3f} nats ({band.low[-1]:.3f} to {band.high[-1]:.3f}); "
        f"further than that the measurements do not tell."
    )
    return f"{text} {left_out}".rstrip()
