"""Where memory tables are kept while a model is trained or used."""

from typing import Literal, get_args

import psutil
from pydantic import Field

from engram.errors import UserError
from engram.frozen import FrozenConfig

PlacementKind = Literal["process", "host", "disk"]
PLACES: tuple[PlacementKind, ...] = get_args(PlacementKind)
RowFormatName = Literal["fp32", "bf16", "int8", "fp8"]
"""The keys of `engram.memory.placement.formats.FORMATS`, here without torch."""
DEFAULT_CACHE_BYTES = 256 << 20


class TablePlacement(FrozenConfig):
    """Where a model's tables are kept in training. It changes what training costs but not its result, so it is not part of a trial's id."""

    kind: PlacementKind = "process"
    """`process`: in the model, on its device. `host`: in this machine's RAM, whatever the device. `disk`: in files."""
    cache_bytes: int = Field(default=DEFAULT_CACHE_BYTES, ge=1)
    """RAM for the hot rows of all tables on disk together."""
    prefetch: bool = True
    """Fetch the rows of the next batch while the current one computes; if not, they are fetched when they are used."""

    def check_memory(self, trials: int = 1) -> None:
        """UserError when the caches of `trials` trials are larger than the free memory."""
        free = int(psutil.virtual_memory().available)
        if self.kind == "disk" and trials * self.cache_bytes > free:
            each = f" for each of {trials} trials" if trials > 1 else ""
            raise UserError(f"a table cache of {self.cache_bytes / 1e9:.3g} GB{each} is larger than the free memory, {free / 1e9:.3g} GB")


class ServingPlacement(TablePlacement):
    """Where the tables of a trained model are kept while it is used; formats other than fp32 round its rows."""

    row_format: RowFormatName = "fp32"
