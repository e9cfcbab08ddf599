"""The declared experiment: its file, its trials, what they cost, and how they are carried out."""
