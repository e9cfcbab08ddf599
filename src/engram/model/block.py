"""One layer: memory (if it has one), attention and feed-forward, each added to the residual branches."""

from collections.abc import Callable

from torch import Tensor, nn

from engram.config.model import ModelConfig
from engram.history import History
from engram.memory.site import MemorySite
from engram.model.attention import build_attention
from engram.model.hyperconnection import HyperConnection, connection
from engram.model.layers import RMSNorm
from engram.model.moe import MoE, SwiGLU
from engram.model.residual import Residual
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

    def forward(self, stream: Residual, vectors: Tensor | None, rotary: Rotary, past: History) -> Residual:
        """The residual stream [B, T, M, d], the layer's memory vectors [B, T, d_mem] or None -> the stream after the layer."""
        past, memory = past.at(self.layer), self.memory
        if memory is not None and vectors is not None and not self.memory_in_values:
            if self.memory_connection is None:
                stream = stream.plus(memory(vectors, stream.value(), past))
            else:
                mixed = self.memory_connection(stream.value(), lambda x: memory(vectors, x.unsqueeze(2), past).squeeze(2))
                stream = Residual(mixed)

        def attend(normed: Tensor) -> Tensor:
            in_values = memory is not None and vectors is not None and self.memory_in_values
            added = memory(vectors, normed, past) if memory is not None and in_values else None
            return self.attention(normed, rotary, added, past)

        stream = _through(stream, self.attention_connection, self.attention_norm, attend)
        return _through(stream, self.feed_forward_connection, self.feed_forward_norm, self.feed_forward)


def _through(stream: Residual, connection: HyperConnection | None, norm: RMSNorm, sublayer: Callable[[Tensor], Tensor]) -> Residual:
    """The stream after a sublayer, which takes a norm [B, T, d] of it and gives [B, T, d]."""
    if connection is None:
        return stream.plus(sublayer(stream.normed(norm)).unsqueeze(2))
    return Residual(connection(stream.value(), lambda x: sublayer(norm(x))))
