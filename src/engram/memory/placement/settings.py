"""Where memory tables lie while a model is trained."""

from typing import Literal

import psutil
from pydantic import Field

from engram.errors import UserError
from engram.frozen import FrozenConfig

PlacementKind = Literal["process", "host", "disk"]
DEFAULT_CACHE_BYTES = 256 << 20


class TablePlacement(FrozenConfig):
    """A choice that changes what training costs and not what comes out: no part of a trial's id."""

    kind: PlacementKind = "process"
    """`process`: in the model, on its device. `host`: in this machine's RAM, whatever the device. `disk`: in files."""
    cache_bytes: int = Field(default=DEFAULT_CACHE_BYTES, ge=1)
    """RAM for the hot rows of all tables on disk together."""
    prefetch: bool = True
    """Fetch the rows of the next batch while this one computes; if not, when they are used."""

    def check_memory(self) -> None:
        """UserError when the cache is larger than the memory that is free."""
        free = int(psutil.virtual_memory().available)
        if self.kind == "disk" and self.cache_bytes > free:
            raise UserError(f"the table cache of {self.cache_bytes / 1e9:.3g} GB is larger than the free memory, {free / 1e9:.3g} GB")
