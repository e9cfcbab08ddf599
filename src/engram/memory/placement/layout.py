"""The place of each row in a table file."""

from dataclasses import dataclass

HEADER_BYTES = 4096
SECTOR = 512
"""Unit of direct I/O of most devices, in bytes."""
RECORD_HEAD = 8
"""Bytes of checksum and step, before each row's payload."""


@dataclass(frozen=True)
class RowLayout:
    """Blocks of whole sectors after a header. In a writable file each row has a block of its own, so that writing it need not read its
    neighbours first; in a read-only file rows share a sector as far as they fit."""

    rows: int
    payload: int
    """Bytes of a row."""
    sector: int
    """Unit of direct I/O, in bytes."""
    writable: bool
    salt: int
    """32 random bits that go into the checksums."""

    @property
    def start(self) -> int:
        """Byte at which the first block starts."""
        return HEADER_BYTES

    @property
    def group(self) -> int:
        """Rows in a block."""
        return 1 if self.writable else max(1, self.sector // (self.payload + RECORD_HEAD))

    @property
    def block(self) -> int:
        """Bytes of a block."""
        return -(-self.group * (self.payload + RECORD_HEAD) // self.sector) * self.sector

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.start + -(-self.rows // self.group) * self.block
