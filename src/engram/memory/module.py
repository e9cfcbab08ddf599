"""The Engram module of one layer: tables and fusion together."""

from torch import Tensor, nn

from engram.config import ModelConfig
from engram.memory.fusion import Fusion
from engram.memory.tables import EmbeddingTables


class Engram(nn.Module):
    """Conditional memory of one layer (paper, 2.2 - 2.4).

    Args:
        config: a model with `config.engram`.
        head_sizes: rows of each head's table of this layer, H numbers.
    """

    def __init__(self, config: ModelConfig, head_sizes: list[int]) -> None:
        super().__init__()
        engram = config.engram
        assert engram is not None
        self.tables = EmbeddingTables(head_sizes, engram.row_dim)
        self.fusion = Fusion(
            width=config.width,
            branches=config.branches,
            memory_dim=engram.memory_dim,
            conv_kernel=engram.conv_kernel,
            conv_dilation=engram.max_ngram,
            gate=engram.gate,
            bias=engram.projection_bias,
            norm_eps=config.norm_eps,
        )

    def forward(self, hidden: Tensor, indices: Tensor) -> Tensor:
        """Hidden states [B, T, M, d] and indices int64 [B, T, H] -> hidden states with the memory added [B, T, M, d]."""
        return hidden + self.fusion(self.tables(indices), hidden)
