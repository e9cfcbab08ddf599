"""What a sweep may ask for: far above any experiment, far below what fills a machine's memory (named in docs/sweeps.md)."""

MAX_FILE_BYTES = 256 * 1024
"""Bytes of a sweep file."""
MAX_DEPTH = 20
"""Mappings and lists inside each other."""
MAX_EXPANDED = 1_000_000
"""Characters that a sweep file comes to when every alias is written out."""
MAX_NUMBER = 100
"""Characters of a number."""
MAX_SLOTS = 10**12
"""Rows of all memory tables together."""
NEAREST_RHOS = 1e-6
"""Difference between two values of rho: closer ones read alike in every table."""
MAX_VARIANTS = 1_000
"""Combinations of the axes' values."""
MAX_TRIALS = 10_000
"""Trials of one sweep."""
