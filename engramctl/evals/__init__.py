"""Benchmark scores of trained models: what to score, on Ray, as tables."""
