"""The form of a measurement."""

from collections.abc import Callable

from engram.benchmarks.gpu.environment import Environment, Tell

Measurement = Callable[[Environment, Tell], None]
"""Measures in an environment and tells what it finds."""
