"""Checkpoints: written as a whole, read back to continue training, or restored as models."""
