"""Comparisons within a sweep in numbers: variants, layers, memory; every difference is paired by seed."""
