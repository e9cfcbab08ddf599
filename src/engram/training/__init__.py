"""Training of one trial: optimisers, schedule, checkpoints, validation and the loop. It knows nothing of sweeps."""
