"""Memory tables outside the model: in host RAM or in files, prefetched and written back in the background."""
