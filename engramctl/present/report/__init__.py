"""`engramctl report`: what a sweep has shown, on one page that needs nothing else."""
