"""The memory designs by name; `memory.design` selects one, and `none` leaves the memory out."""

from engram.errors import UserError
from engram.memory.designs.base import Memory
from engram.memory.designs.engram import Engram
from engram.memory.designs.engram_v41 import EngramV41
from engram.memory.designs.over_encoding import OverEncoding
from engram.memory.designs.value import Value

NONE = "none"

DESIGNS: dict[str, type[Memory]] = {
    "engram": Engram,
    "engram-v4.1": EngramV41,
    "over-encoding": OverEncoding,
    "value": Value,
}


def design_names() -> list[str]:
    """All values that `memory.design` can have."""
    return [*DESIGNS, NONE]


def design(name: str) -> type[Memory]:
    """The design of that name; an unknown one is a UserError that lists the names."""
    try:
        return DESIGNS[name]
    except KeyError:
        raise UserError(f"memory design '{name}' is unknown; there are {', '.join(design_names())}") from None
