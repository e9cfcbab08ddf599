import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.config.training import CosineSchedule, ScheduleConfig, StepSchedule, TrainConfig, WSDSchedule
from engram.training.lr_schedule import rate_factor

FRACTION = st.floats(0, 1)
DROPS = st.lists(st.floats(0.01, 0.99), max_size=4, unique=True).map(sorted).map(tuple)
SCHEDULES = st.one_of(
    st.builds(WSDSchedule, warmup_fraction=FRACTION, decay_fraction=FRACTION, final_fraction=FRACTION),
    st.builds(CosineSchedule, warmup_fraction=FRACTION, final_fraction=FRACTION),
    st.builds(StepSchedule, warmup_fraction=FRACTION, drops=DROPS, factor=st.floats(0.01, 1)),
)


def factors(schedule: ScheduleConfig, steps: int) -> list[float]:
    train = TrainConfig(steps=steps, batch_size=1, seq_len=8, learning_rate=1.0, schedule=schedule)
    return [rate_factor(train, step) for step in range(steps)]


@given(SCHEDULES, st.integers(1, 300))
def test_the_rate_rises_in_the_warmup_and_never_after_it(schedule, steps):
    rates = factors(schedule, steps)
    assert all(0 < rate <= 1 for rate in rates)
    warmup = round(schedule.warmup_fraction * steps)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    peak = rates.index(max(rates))
    assert peak <= warmup
    assert rates[: peak + 1] == sorted(rates[: peak + 1])


@given(st.integers(1, 300), FRACTION, FRACTION, FRACTION)
def test_wsd_has_the_numbers_of_its_formula(steps, warmup, decay, final):
    rising = [(step + 1) / (round(warmup * steps) + 1) for step in range(steps)]
    falling = [min(1.0, (steps - step) / (round(decay * steps) + 1)) for step in range(steps)]
    wanted = [min(1.0, rise, final + (1 - final) * fall) for rise, fall in zip(rising, falling, strict=True)]
    assert factors(WSDSchedule(warmup_fraction=warmup, decay_fraction=decay, final_fraction=final), steps) == wanted


ROOT = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (WSDSchedule(warmup_fraction=0.2, decay_fraction=0.4), [1 / 3, 2 / 3, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        (WSDSchedule(warmup_fraction=0, decay_fraction=0.4, final_fraction=0.5), [1, 1, 1, 1, 1, 1, 0.9, 0.8, 0.7, 0.6]),
        # eight steps of an eighth of the half cosine each, from 1 towards 0.2
        (
            CosineSchedule(warmup_fraction=0.2, final_fraction=0.2),
            [1 / 3, 2 / 3, 1]
            + [0.6 + 0.4 * cos for cos in (math.cos(math.pi / 8), ROOT, math.sin(math.pi / 8), 0)]
            + [0.6 - 0.4 * cos for cos in (math.sin(math.pi / 8), ROOT, math.cos(math.pi / 8))],
        ),
        (StepSchedule(warmup_fraction=0.1, drops=(0.6, 0.8), factor=0.5), [0.5, 1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]),
        (StepSchedule(warmup_fraction=0, drops=()), [1] * 10),
    ],
)
def test_ten_steps_by_hand(schedule, wanted):
    assert factors(schedule, 10) == pytest.approx(wanted, abs=1e-12)


def test_a_drop_in_the_warmup_caps_it():
    assert factors(StepSchedule(warmup_fraction=0.5, drops=(0.2,), factor=0.4), 6) == pytest.approx([0.25, 0.4, 0.4, 0.4, 0.4, 0.4])
