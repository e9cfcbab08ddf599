"""Memory tables outside the model: in host RAM or in files, fetched ahead, written back behind."""
