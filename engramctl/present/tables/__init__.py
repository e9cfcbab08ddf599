"""What commands print in the terminal, mostly tables."""
