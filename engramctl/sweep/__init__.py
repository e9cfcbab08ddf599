"""The declared experiment: its file, its trials, what they cost, and carrying them out."""
