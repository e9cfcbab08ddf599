"""Live views of work in progress."""
