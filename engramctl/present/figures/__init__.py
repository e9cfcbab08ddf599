"""Figures from tables and fits: no training imports, no pyplot, the same bytes for the same data."""
