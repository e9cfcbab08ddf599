"""The folder for what can be made again: prepared corpora and compiled kernels."""

import os
from pathlib import Path

import platformdirs


def default_cache() -> Path:
    """`$ENGRAMCTL_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("ENGRAMCTL_CACHE") or platformdirs.user_cache_dir("engramctl"))
