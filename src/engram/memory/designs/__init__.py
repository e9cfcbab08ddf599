"""Memory designs: how hashed N-gram rows enter a model. A new one takes a file here and a line in `registry`."""
