"""Where memory tables lie while a model is trained."""

from typing import Literal, get_args

import psutil
from pydantic import Field

from engram.errors import UserError
from engram.frozen import FrozenConfig

PlacementKind = Literal["process", "host", "disk"]
PLACES: tuple[PlacementKind, ...] = get_args(PlacementKind)
RowFormatName = Literal["fp32", "bf16", "int8", "fp8"]
"""The keys of `engram.memory.placement.formats.FORMATS`"""
DEFAULT_CACHE_BYTES = 256 << 20


class TablePlacement(FrozenConfig):
    """A choice that changes what training costs and not what comes out: no part of a trial's id."""

    kind: PlacementKind = "process"
    """`process`: in the model, on its device. `host`: in this machine's RAM, whatever the device. `disk`: in files."""
    cache_bytes: int = Field(default=DEFAULT_CACHE_BYTES, ge=1)
    """RAM for the hot rows of all tables on disk together."""
    prefetch: bool = True
    """Fetch the rows of the next batch while this one computes; if not, when they are used."""

    def check_memory(self, trials: int = 1) -> None:
        """UserError when the caches of so many trials are larger than the memory that is free."""
        free = int(psutil.virtual_memory().available)
        if self.kind == "disk" and trials * self.cache_bytes > free:
            each = f" for each of {trials} trials" if trials > 1 else ""
            raise UserError(f"a table cache of {self.cache_bytes / 1e9:.3g} GB{each} is larger than the free memory, {free / 1e9:.3g} GB")


class ServingPlacement(TablePlacement):
    """Where the tables of a trained model lie while it is used; formats other than fp32 round its rows."""

    row_format: RowFormatName = "fp32"
