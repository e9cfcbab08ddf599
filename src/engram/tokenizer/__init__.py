"""Byte-level BPE and compression of its vocabulary."""
