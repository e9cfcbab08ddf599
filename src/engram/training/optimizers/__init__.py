"""Optimisers of dense weights and of table rows."""
