"""Learning rate over a trial."""

from engram.config import TrainConfig


def rate_factor(train: TrainConfig, step: int) -> float:
    """Factor on the peak rate for step 0..steps-1: linear warm-up, constant, linear decay to `final_lr_fraction`."""
    warmup = round(train.warmup_fraction * train.steps)
    decay = round(train.decay_fraction * train.steps)
    rising = min(1.0, (step + 1) / (warmup + 1))
    left = train.steps - step
    falling = min(1.0, left / (decay + 1))
    return min(rising, train.final_lr_fraction + (1 - train.final_lr_fraction) * falling)
