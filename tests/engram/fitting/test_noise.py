"""Noise by rho: what seeds show of it, and how uncertain it is where they show little."""

import numpy as np
import pytest

from engram.fitting.layout import lay_out
from engram.fitting.noise import trial_noise
from engram.fitting.results import Observations

RHOS = np.linspace(0, 1, 8)


def noise_of(seeds, factors=(), rng=0, keep=None):
    """Noise of a sweep of flat curves whose trials differ by 0.01, times a factor at some places."""
    generator = np.random.default_rng(rng)
    sd = np.full(len(RHOS), 0.01)
    for place, factor in factors:
        sd[place] *= factor
    loss = 3 + generator.normal(0, 0.02, seeds) + generator.normal(0, sd[:, None], (len(RHOS), seeds))
    x, seed = np.repeat(RHOS, seeds), np.tile(np.arange(seeds), len(RHOS))
    chosen = np.ones(len(x), dtype=bool) if keep is None else keep(x, seed)
    return trial_noise(lay_out(Observations(x[chosen], seed[chosen], loss.ravel()[chosen][:, None], np.ones(1))))


def typical(noise, count=4000):
    return np.sqrt(np.median(noise.draw(count, np.random.default_rng(1)), axis=0))


def test_many_seeds_show_the_noise_of_each_rho():
    sds = typical(noise_of(400, factors=[(7, 4.0), (2, 2.0)]))
    # A little of what one rho scatters is in the estimated effects of the seeds, and so in all others
    assert sds == pytest.approx([0.0115, 0.0115, 0.02, 0.0115, 0.0115, 0.0115, 0.0115, 0.037], rel=0.15)


def test_few_seeds_borrow_from_all_rhos_but_at_the_ends():
    """Of 30 sweeps, inner rhos scatter less than their own two degrees of freedom would make them, and the ends far more."""
    logs = np.log([typical(noise_of(3, rng=number), count=500) for number in range(30)])
    inner, ends = logs[:, 1:-1].std(axis=0).mean(), logs[:, [0, -1]].std(axis=0).mean()
    assert inner < 0.3
    assert ends < 0.6


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("factor", [1, 3])
def test_intervals_at_an_end_cover_also_if_trials_there_are_noisier(seeds, factor):
    rng, covered = np.random.default_rng(seeds), []
    for number in range(60):
        noise = noise_of(seeds, factors=[(7, factor)], rng=number)
        own = noise.draw(500, rng)[:, -1]
        errors = np.abs(np.sqrt(own / seeds) * rng.standard_normal(500))
        error = rng.normal(0, 0.01 * factor / seeds**0.5)
        covered.append(abs(error) < np.quantile(errors, 0.95))
    assert np.mean(covered) >= 0.8  # 60 sweeps: 0.9 less two standard errors and a half


def test_where_only_the_ends_have_two_seeds_the_pooled_noise_counts():
    noise = noise_of(4, keep=lambda x, seed: (seed == 0) | (x == 0) | (x == 1))
    assert not noise.dofs[1:-1].any()
    assert np.isfinite(noise.draw(50, np.random.default_rng(0))).all()


def test_trials_without_noise_have_none():
    x, seed = np.repeat(RHOS, 2), np.tile([0, 1], 8)
    noise = trial_noise(lay_out(Observations(x, seed, np.full((16, 1), 3.0), np.ones(1))))
    assert noise.draw(20, np.random.default_rng(0)).max() < 1e-20
