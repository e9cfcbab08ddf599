"""The memory designs there are; `memory.design` chooses one by name, `none` leaves the memory out."""

from engram.designs.base import Memory
from engram.designs.engram import Engram
from engram.designs.engram_v41 import EngramV41
from engram.designs.over_encoding import OverEncoding
from engram.designs.value import Value
from engram.errors import UserError

NONE = "none"

DESIGNS: dict[str, type[Memory]] = {
    "engram": Engram,
    "engram-v4.1": EngramV41,
    "over-encoding": OverEncoding,
    "value": Value,
}


def design_names() -> list[str]:
    """All names that `memory.design` can have."""
    return [*DESIGNS, NONE]


def design(name: str) -> type[Memory]:
    """The design of that name; UserError lists the names there are."""
    try:
        return DESIGNS[name]
    except KeyError:
        raise UserError(f"memory design '{name}' is unknown; there are {', '.join(design_names())}") from None
