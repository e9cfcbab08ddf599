"""Rows of the tables, built from what the library returns."""
