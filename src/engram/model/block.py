"""One layer: memory (where there is one), attention, feed-forward, each added to the residual stream."""

from torch import Tensor, nn

from engram.config import ModelConfig
from engram.memory.module import Engram
from engram.model.attention import Attention
from engram.model.moe import MoE, SwiGLU


class Block(nn.Module):
    """Layer `layer` of the model.

    Args:
        config: the model.
        layer: number from 0.
        head_sizes: rows of each hash head's table of this layer; None where the layer has no memory.
    """

    def __init__(self, config: ModelConfig, layer: int, head_sizes: list[int] | None) -> None:
        super().__init__()
        self.engram = Engram(config, head_sizes) if head_sizes is not None else None
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        dense = layer < config.moe.n_dense_layers
        self.feed_forward = SwiGLU(config.width, config.moe.dense_width) if dense else MoE(config)

    def forward(self, hidden: Tensor, indices: Tensor | None) -> Tensor:
        """Hidden states [B, T, M, d] and the layer's table indices int64 [B, T, H] -> hidden states [B, T, M, d]."""
        if self.engram is not None:
            assert indices is not None
            hidden = self.engram(hidden, indices)
        # One branch: what a sublayer reads and writes is that branch.
        hidden = hidden + self.attention(self.attention_norm(hidden.squeeze(2))).unsqueeze(2)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden.squeeze(2))).unsqueeze(2)
