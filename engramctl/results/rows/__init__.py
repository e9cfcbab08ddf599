"""Rows of the tables, from what the library returns."""
