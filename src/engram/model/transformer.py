"""The whole model: embedding, layers, final norm, head."""

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from engram.config import ModelConfig
from engram.memory.hashing import NgramHash
from engram.memory.tables import EmbeddingTables
from engram.model.block import Block
from engram.model.head import mean_cross_entropy, token_cross_entropy
from engram.model.moe import Router


class Transformer(nn.Module):
    """Decoder-only language model with experts and, where the config says so, lookup memory.

    Args:
        config: the model.
        compression: int64 [V], canonical id of every token (`engram.tokenizer.compression`); None hashes raw ids.
        pad_id: token id that stands before the start of a sequence in the N-grams.
    """

    def __init__(self, config: ModelConfig, compression: Tensor | None = None, pad_id: int = 0) -> None:
        super().__init__()
        self.config = config
        if compression is None or (config.engram and not config.engram.compression):
            compression = torch.arange(config.vocab_size)
        if len(compression) != config.vocab_size:
            raise ValueError(f"compression has {len(compression)} ids for a vocabulary of {config.vocab_size}")
        self.compression: Tensor
        self.register_buffer("compression", compression, persistent=False)
        self.hash: NgramHash | None = None
        head_sizes: dict[int, list[int]] = {}
        if config.engram:
            self.hash = NgramHash.from_config(config.engram, int(compression.max()) + 1, int(compression[pad_id]))
            head_sizes = dict(zip(config.engram.layers, self.hash.head_sizes.tolist(), strict=True))
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, layer, head_sizes.get(layer)) for layer in range(config.n_layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)

    def initialise(self, seed: int) -> None:
        """Draw all weights. Each has a generator of its own, so that equal parts of two models start equal."""
        for name, parameter in self.named_parameters():
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator(parameter.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            std = self._init_std(name, parameter)
            if std is not None:
                nn.init.normal_(parameter, std=std, generator=generator)

    def _init_std(self, name: str, parameter: Tensor) -> float | None:
        """Standard deviation of a weight; None for those that start at a constant (norms, biases, convolution)."""
        config = self.config
        residual = 1 / math.sqrt(2 * config.n_layers)  # outputs that are summed in the residual stream
        if name.endswith("tables.weight"):
            return config.table_init_std
        if name == "embedding.weight":
            return config.embedding_init_std
        if name == "head.weight":
            return 0.02
        if "norm" in name or name.endswith((".bias", "conv.weight")):
            return None
        if name.endswith("experts.gate_up"):
            return 1 / math.sqrt(config.width)
        if name.endswith("experts.out"):
            return residual / math.sqrt(config.moe.expert_width)
        is_output = name.endswith(("out.weight", "value.weight"))
        return (residual if is_output else 1.0) / math.sqrt(parameter.shape[-1])

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids int64 [B, T] -> final hidden states [B, T, d], after the last norm."""
        indices: Tensor | None = None
        if self.hash is not None:
            indices = self.hash(self.compression[tokens])  # [memory layers, B, T, H]
        hidden = self.embedding(tokens).unsqueeze(2)  # [B, T, M, d]
        memory = 0
        for block in self.blocks:
            if block.engram is None:
                hidden = block(hidden, None)
            else:
                assert indices is not None
                hidden = block(hidden, indices[memory])
                memory += 1
        return self.norm(hidden.squeeze(2))

    def logits(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, T, V]"""
        return self.head(self(tokens))

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean next-token loss in nats: int64 [B, T] each -> scalar."""
        return mean_cross_entropy(self(tokens).flatten(0, 1), self.head.weight, targets.flatten())

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Loss of every target in nats, without gradient: int64 [B, T] each -> fp32 [B, T]."""
        return token_cross_entropy(self(tokens).flatten(0, 1), self.head.weight, targets.flatten()).view_as(targets)

    def tables(self) -> Iterator[EmbeddingTables]:
        """The tables of all memory layers."""
        return (module for module in self.modules() if isinstance(module, EmbeddingTables))

    def routers(self) -> Iterator[Router]:
        """The routers of all MoE layers."""
        return (module for module in self.modules() if isinstance(module, Router))
