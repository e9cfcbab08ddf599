"""The whole model: embedding, layers, final norm, head."""

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.config.model import ModelConfig
from engram.history import History
from engram.memory.lookup import MakeTables, MemoryLookup
from engram.memory.placement.fetcher import Request
from engram.memory.site import MemorySite
from engram.memory.tables import EmbeddingTables, drawn_rows
from engram.model.block import Block
from engram.model.head import mean_cross_entropy, token_cross_entropy
from engram.model.hyperconnection import HyperConnection, HyperHead
from engram.model.layers import Linear, RMSNorm, TokenEmbedding
from engram.model.moe import RoutedExperts, Router
from engram.model.residual import Residual
from engram.model.rotary import rotary_tables

HEAD_INIT_STD = 0.02


class Transformer(nn.Module):
    """Decoder-only language model with experts and, where the config says so, lookup memory.

    Args:
        config: the model.
        compression: int64 [V], canonical id of every token (`engram.tokenizer.compression`); None hashes raw ids.
        pad_id: token id that stands before the start of a sequence in the N-grams.
        make_tables: makes each set of memory tables.

    Raises ValueError when `compression` has the wrong length.
    """

    def __init__(
        self, config: ModelConfig, compression: Tensor | None = None, pad_id: int = 0, make_tables: MakeTables = EmbeddingTables
    ) -> None:
        super().__init__()
        self.config = config
        if compression is None:
            compression = torch.arange(config.vocab_size)
        if len(compression) != config.vocab_size:
            raise ValueError(f"compression has {len(compression)} ids for a vocabulary of {config.vocab_size}")
        memory = config.memory
        self.embedding = TokenEmbedding(config.vocab_size, config.width)
        self.lookup = MemoryLookup(memory, compression, pad_id, make_tables) if memory is not None else None
        self.embedding_memory = MemorySite(memory, config.backbone) if memory is not None and memory.site == "embedding" else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.merge = HyperHead(config) if config.branches > 1 else None
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """[V, d]"""
        return self.embedding.weight if self.head is None else self.head.weight

    def initialise(self, seed: int) -> None:
        """Draw all weights. Each has a generator of its own, so that equal parts of two models start out equal.

        Tables on the meta device are skipped; `table_start` gives their rows.
        """
        for prefix, module in self.named_modules():
            for own_name, parameter in module.named_parameters(recurse=False):
                if parameter.is_meta:
                    continue
                name = f"{prefix}.{own_name}"
                std = self._init_std(name, own_name, module, parameter)
                if std and isinstance(module, EmbeddingTables):
                    module.draw(std, _generator(seed, name, parameter.device))
                elif std:
                    nn.init.normal_(parameter, std=std, generator=_generator(seed, name, parameter.device))
                elif isinstance(module, EmbeddingTables):
                    nn.init.zeros_(parameter)

    def table_start(self, seed: int, name: str) -> Iterator[tuple[int, Tensor]]:
        """The rows that `initialise` would give a table, in pieces: first row, rows fp32 [n, r]."""
        table = self.get_submodule(name)
        assert isinstance(table, EmbeddingTables)
        generator = _generator(seed, f"{name}.weight", torch.device("cpu"))
        rows, row_dim = table.weight.shape
        return drawn_rows(rows, row_dim, self.config.table_init_std, generator)

    def _init_std(self, name: str, own_name: str, module: nn.Module, parameter: Tensor) -> float:
        """Initial standard deviation of a weight; 0 for those that start at a constant (norms, biases, convolution)."""
        config = self.config
        if isinstance(module, EmbeddingTables):
            return config.table_init_std
        if isinstance(module, MemorySite):
            return module.declared[own_name].start
        if isinstance(module, HyperConnection | HyperHead):
            return 1 / math.sqrt(parameter.shape[1]) if own_name == "fn" else 0.0
        if isinstance(module, nn.RMSNorm):
            return 0.0
        if name == "embedding.weight":
            return HEAD_INIT_STD if config.tie_embeddings else config.embedding_init_std
        if name == "head.weight":
            return HEAD_INIT_STD
        if name.endswith("experts.gate_up"):
            return 1 / math.sqrt(config.width)
        if name.endswith("experts.out"):
            return config.residual_scale / math.sqrt(config.moe.expert_width)
        return (config.residual_scale if name.endswith("out.weight") else 1.0) / math.sqrt(parameter.shape[-1])

    def request(self, tokens: Tensor, past: History | None = None) -> Request | None:
        """Begin to fetch the memory rows for the tokens int64 [B, T] that will follow `past`; None if there is nothing to fetch."""
        return None if self.lookup is None else self.lookup.request(tokens, past)

    def forward(self, tokens: Tensor, past: History | None = None, request: Request | None = None) -> Tensor:
        """Token ids int64 [B, T] -> final hidden states [B, T, d], after the last norm.

        Args:
            tokens: the tokens of whole sequences, or those that follow `past`.
            past: what came before (`engram.model.generation.Cache`); these tokens are added to it.
            request: what `request` returned for the same tokens and `past`; None: rows outside the model are asked for now.
        """
        config, past = self.config, past or History()
        memory = config.memory
        vectors = None if self.lookup is None else self.lookup.vectors(tokens, past, request)  # by site: [B, T, d_mem]
        embedded = self.embedding(tokens)  # [B, T, d]
        if config.tie_embeddings:  # so that both start out as in an untied model
            embedded = embedded * (config.embedding_init_std / HEAD_INIT_STD)
        if self.embedding_memory is not None and vectors is not None:
            embedded = embedded + self.embedding_memory(vectors(0), embedded, past)
        hidden = embedded.unsqueeze(2)  # [B, T, 1, d]
        if self.merge is not None:
            hidden = hidden.expand(-1, -1, config.branches, -1).contiguous()  # [B, T, M, d]
        stream = Residual(hidden)
        positions = past.positions(tokens.shape[1], tokens.device)
        rotary = rotary_tables(config.attention.rope, config.attention.rope_width(config.width), positions)
        in_layers = memory is not None and memory.site != "embedding"
        site_of = {layer: site for site, layer in enumerate(memory.sites)} if memory is not None and in_layers else {}
        for layer, block in enumerate(self.blocks):
            own = vectors(site_of[layer]) if vectors is not None and layer in site_of else None
            stream = block(stream, own, rotary, past)
        return stream.normed(self.norm) if self.merge is None else self.norm(self.merge(stream.value()))

    def logits(self, tokens: Tensor, past: History | None = None) -> Tensor:
        """[B, T] -> [B, T, V]"""
        return F.linear(self(tokens, past), self.head_weight)

    def loss(self, tokens: Tensor, targets: Tensor, request: Request | None = None) -> Tensor:
        """Mean next-token loss in nats: int64 [B, T] each -> scalar; `request` as in `forward`."""
        return mean_cross_entropy(self(tokens, request=request).flatten(0, 1), self.head_weight, targets.flatten())

    def token_losses(self, tokens: Tensor, targets: Tensor, last: int | None = None) -> Tensor:
        """Losses of targets in nats, without gradient: int64 [B, T] each -> fp32 [B, T], or of the `last` of each sequence: [B, last]."""
        hidden, wanted = (self(tokens), targets) if last is None else (self(tokens)[:, -last:], targets[:, -last:])
        return token_cross_entropy(hidden.flatten(0, 1), self.head_weight, wanted.flatten()).view_as(wanted)

    def tables(self) -> Iterator[EmbeddingTables]:
        """All sets of memory tables."""
        return (module for module in self.modules() if isinstance(module, EmbeddingTables))

    def named_tables(self) -> dict[str, EmbeddingTables]:
        """All sets of memory tables, by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, EmbeddingTables)}

    def multiplied(self) -> Iterator[Tensor]:
        """The weights whose products run in the dtype of autocast."""
        for module in self.modules():
            if isinstance(module, Linear | RoutedExperts):
                yield from module.parameters(recurse=False)
            elif isinstance(module, MemorySite):
                yield from (module.get_parameter(own) for own in module.matrices)
        yield self.head_weight

    def routers(self) -> Iterator[Router]:
        """The routers of all MoE layers."""
        return (module for module in self.modules() if isinstance(module, Router))


def _generator(seed: int, name: str, device: torch.device) -> torch.Generator:
    """The generator of one weight's initial values."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
