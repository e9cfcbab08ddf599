"""Command line of the Engram/MoE allocation toolkit."""

__version__ = "0.1.0"
