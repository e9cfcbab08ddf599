"""Training of one trial: the loop, optimisers, schedules, checkpoints and validation."""
