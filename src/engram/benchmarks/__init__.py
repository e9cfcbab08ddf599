"""How fast models train and run on this machine, and where the time goes. Measurements only; `results` holds what they return."""
