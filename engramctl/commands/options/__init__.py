"""Typer arguments and options that several commands share, and parsing of their values."""
