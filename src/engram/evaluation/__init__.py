"""Downstream evaluation of trained models: benchmarks, their prompts and their scores."""
