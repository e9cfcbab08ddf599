"""The decoder-only sparse model.

Shapes: B sequences, T tokens, N = B T tokens of a batch, flattened, M residual branches, d width, h heads, E routed experts, k experts
that a token visits, w inner width of an expert, V vocabulary.
"""

from engram.model.transformer import Transformer

__all__ = ["Transformer"]
