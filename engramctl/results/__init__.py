"""Results on disk: Parquet tables, the manifest, and `SweepResults`, the one way to open a sweep."""
