"""The learning rate over a trial."""

import math

from engram.config.training import CosineSchedule, StepSchedule, TrainConfig, WSDSchedule


def rate_factor(train: TrainConfig, step: int) -> float:
    """Factor on the peak rate for step 0..steps-1: linear warm-up, then what the schedule's kind says.

    `wsd` and `cosine` reach their final fraction only at step `steps`, which is not taken: the last step still moves the weights.
    """
    schedule = train.schedule
    warmup = round(schedule.warmup_fraction * train.steps)
    rising = min(1.0, (step + 1) / (warmup + 1))
    match schedule:
        case WSDSchedule():
            decay = round(schedule.decay_fraction * train.steps)
            falling = min(1.0, (train.steps - step) / (decay + 1))
            later = schedule.final_fraction + (1 - schedule.final_fraction) * falling
        case CosineSchedule():
            done = max(0, step - warmup) / max(1, train.steps - warmup)
            later = schedule.final_fraction + (1 - schedule.final_fraction) * (1 + math.cos(math.pi * done)) / 2
        case StepSchedule():
            later = schedule.factor ** sum(step >= round(drop * train.steps) for drop in schedule.drops)
    return min(rising, later)
