"""What `engramctl analyze` finds in trained models: as tables, on the terminal, and where it is kept."""
