"""Rounding at random, and rules on rows that are kept in bf16."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from engram.config.training import TrainConfig
from engram.training.optimizers.combined import row_rule
from engram.training.optimizers.rounding import round_at_random
from engram.training.optimizers.scalars import step_scalars

SPACING = 2.0**-8
"""Between bf16 numbers from 0.5 to 1"""


def test_it_is_right_on_average_over_numbers_and_over_steps():
    numbers = torch.empty(200_000).uniform_(0.5, 1, generator=torch.Generator().manual_seed(0))
    errors = (round_at_random(numbers, 1).float() - numbers) / SPACING
    assert errors.abs().max() < 1
    assert errors.std() > 0.3
    assert abs(errors.mean()) < 4 * errors.std() / len(errors) ** 0.5
    for number, rest in ((0.5 + SPACING / 4, 0.25), (-0.5 - 0.9 * SPACING, 0.9)):
        steps = torch.stack([round_at_random(torch.tensor([number]), step) for step in range(4000)]).float().abs()
        assert steps.unique().tolist() == [0.5, 0.5 + SPACING]
        away = (steps > 0.5).float().mean().item()
        assert away == pytest.approx(rest, abs=4 * (rest * (1 - rest) / 4000) ** 0.5 + 1e-3)


def test_small_updates_are_not_lost():
    """A thousand steps of about a sixteenth of a bf16's spacing; rounded to nearest, no number would ever move."""
    steps = torch.empty(5000).uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0)) * SPACING / 16
    at_random = nearest = torch.full((5000,), 0.99, dtype=torch.bfloat16)
    for number in range(1000):
        at_random = round_at_random(at_random.float() - steps, number)
        nearest = (nearest.float() - steps).bfloat16()
    moved = 0.98828125 - at_random.float()
    assert moved.mean().item() == pytest.approx(1000 * steps.mean().item(), rel=0.01)
    assert torch.corrcoef(torch.stack([moved, steps]))[0, 1] > 0.5
    assert nearest.unique().tolist() == [0.98828125]


@given(npst.arrays("float32", 16, elements=st.floats(width=32)), st.integers(0, 10**9))
def test_the_result_is_a_neighbour_and_the_same_again(numbers, step):
    exact = torch.from_numpy(numbers)
    rounded = round_at_random(exact, step)
    assert torch.equal(rounded.nan_to_num(0), round_at_random(exact, step).nan_to_num(0))
    assert torch.equal(rounded.isnan(), exact.isnan())
    assert torch.equal(round_at_random(rounded.float(), step + 1).nan_to_num(0), rounded.nan_to_num(0)), "a bf16 stays what it is"
    assert torch.equal(rounded.signbit() | exact.isnan(), exact.signbit() | exact.isnan())
    bits = exact.view(torch.int32)
    down, up = (bits & -0x10000).view(torch.float32), ((bits & -0x10000) + 0x10000).view(torch.float32)
    near = (rounded.float() == down) | (rounded.float() == up)
    assert bool((near | ~exact.isfinite()).all())


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_rows_in_bf16_are_those_of_fp32_rounded(kind):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 8, generator=generator).bfloat16()
    kept, exact = table.clone(), table.float()
    settings = {"steps": 1, "batch_size": 1, "seq_len": 8, "learning_rate": 1.0, "table_optimizer": kind}
    rules = [row_rule(TrainConfig.model_validate({**settings, "table_format": one})) for one in ("bf16", "fp32")]
    states = [[torch.zeros(50, dim) for dim in rule.state_dims(8).values()] for rule in rules]
    for step in range(1, 5):
        rows = torch.randperm(50, generator=generator)[:20]
        grad = torch.randn(20, 8, generator=generator)
        before = kept.clone()
        exact[:] = kept.float()  # from the same rows: their rounding is what is left
        rules[0].change(kept, states[0], rows, grad, step_scalars(step, 0.1, 0.1, (0.9, 0.95)))
        rules[1].change(exact, states[1], rows, grad, step_scalars(step, 0.1, 0.1, (0.9, 0.95)))
        assert torch.equal(kept[rows], round_at_random(exact[rows], step))
        others = torch.ones(50, dtype=torch.bool).index_fill(0, rows, False)
        assert torch.equal(kept[others], before[others])
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
