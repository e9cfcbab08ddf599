"""Figures from tables and fits: no training code, no pyplot, and the same bytes for the same data."""
