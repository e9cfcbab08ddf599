"""Byte-level BPE tokenizers and the compression of their vocabulary."""
