"""Where each row lies in a table file."""

from dataclasses import dataclass

HEADER_BYTES = 4096
SECTOR = 512
"""Unit of direct I/O of most devices, bytes"""
RECORD_HEAD = 8
"""Checksum and step, before each row's payload."""


@dataclass(frozen=True)
class RowLayout:
    """Blocks of whole sectors after a header. Written rows have a block each, so that no write has to read its neighbours first;
    rows that are only read share a sector as far as they fit."""

    rows: int
    payload: int
    """Bytes of a row"""
    sector: int
    """Unit of direct I/O, bytes"""
    writable: bool
    salt: int
    """32 bits, of the checksums"""

    @property
    def start(self) -> int:
        """Byte of the first block."""
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
