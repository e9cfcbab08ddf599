"""One layer: memory (if it has one), attention and feed-forward, each added to the residual branches."""

from torch import Tensor, nn

from engram.config.model import ModelConfig
from engram.history import History
from engram.memory.site import MemorySite
from engram.model.attention import build_attention
from engram.model.hyperconnection import connection
from engram.model.layers import RMSNorm
from engram.model.moe import MoE, SwiGLU
from engram.model.rotary import Rotary


class Block(nn.Module):
    """Layer `layer` of the model, counted from 0."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        memory, self.layer = config.memory, layer
        has_site = memory is not None and memory.site != "embedding" and layer in memory.sites
        self.memory = MemorySite(memory, config.backbone) if memory is not None and has_site else None
        self.memory_in_values = memory is not None and memory.site == "values"
        mixes_for_memory = has_site and memory is not None and memory.site == "residual" and not memory.branchwise
        self.memory_connection = connection(config, 2 * layer) if mixes_for_memory else None
        self.attention_connection = connection(config, 2 * layer)
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = build_attention(config)
        self.feed_forward_connection = connection(config, 2 * layer + 1)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_eps)
        dense = layer < config.moe.n_dense_layers
        self.feed_forward = SwiGLU(config.width, config.moe.dense_width) if dense else MoE(config)

    def forward(self, hidden: Tensor, vectors: Tensor | None, rotary: Rotary, past: History) -> Tensor:
        """Hidden states [B, T, M, d], the layer's memory vectors [B, T, d_mem] or None -> hidden states [B, T, M, d]."""
        past, memory = past.at(self.layer), self.memory
        if memory is not None and vectors is not None and not self.memory_in_values:
            if self.memory_connection is None:
                hidden = hidden + memory(vectors, hidden, past)
            else:
                hidden = self.memory_connection(hidden, lambda x: memory(vectors, x.unsqueeze(2), past).squeeze(2))

        def attend(x: Tensor) -> Tensor:
            normed = self.attention_norm(x)
            in_values = memory is not None and vectors is not None and self.memory_in_values
            added = memory(vectors, normed, past) if memory is not None and in_values else None
            return self.attention(normed, rotary, added, past)

        hidden = self.attention_connection(hidden, attend)
        return self.feed_forward_connection(hidden, lambda x: self.feed_forward(self.feed_forward_norm(x)))
