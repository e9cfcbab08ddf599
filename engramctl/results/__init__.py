"""Results on disk: Parquet tables, the manifest, and the one way to open a sweep."""
