"""Model sizes, training recipes, parameter counts, and the split between experts and memory."""
