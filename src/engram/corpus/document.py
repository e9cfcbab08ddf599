"""What a source of text yields."""

from typing import NamedTuple


class Document(NamedTuple):
    """A text, and what it belongs to."""

    text: str
    group: str | None = None
    """Documents of a group go to one side of the split together; None: it stands alone."""
