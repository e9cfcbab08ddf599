"""Parameters and FLOPs of a config, exactly, without building the model.

The counts follow the paper (3.1): P_total leaves out the vocabulary embedding and the LM head; P_active is the number of parameters
that one token uses; P_sparse = P_total - P_active counts the inactive experts and the table rows that are not read. Training FLOPs are
counted as in the paper, 6 P_active per token.
"""

import math
from dataclasses import dataclass

from engram.config.model import ModelConfig
from engram.memory.designs.base import Memory
from engram.memory.primes import head_table_sizes


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters by group; the groups add up to the parameters of the built module."""

    embedding: int
    """Vocabulary embedding and LM head, which P_total leaves out."""
    attention: int
    router: int
    shared_experts: int
    routed_experts: int
    dense: int
    """Dense feed-forward of the leading layers."""
    norms: int
    hyper_connections: int
    memory_weights: int
    """Projections, norms, gates and convolution of the memory, which every token uses."""
    memory_tables: int
    routed_experts_active: int
    """The part of `routed_experts` that one token uses."""
    memory_rows_active: int
    """The part of `memory_tables` that one token reads."""

    @property
    def p_total(self) -> int:
        return self._always + self.routed_experts + self.memory_tables

    @property
    def p_active(self) -> int:
        return self._always + self.routed_experts_active + self.memory_rows_active

    @property
    def p_sparse(self) -> int:
        return self.p_total - self.p_active

    @property
    def p_engram(self) -> int:
        return self.memory_tables

    @property
    def p_embedding(self) -> int:
        return self.embedding

    @property
    def rho(self) -> float:
        """The allocation that these counts amount to: inactive expert parameters / P_sparse; 1 if nothing is inactive."""
        return (self.routed_experts - self.routed_experts_active) / self.p_sparse if self.p_sparse else 1.0

    @property
    def _always(self) -> int:
        return self.attention + self.router + self.shared_experts + self.dense + self.norms + self.hyper_connections + self.memory_weights


def table_rows(memory: Memory) -> int:
    """Rows of all tables (the slots)."""
    sizes = head_table_sizes(memory.table_sizes, memory.n_heads, len(memory.table_layers))
    return sum(rows for layer in sizes for order in layer for rows in order)


def _memory_weights(config: ModelConfig, matrices_only: bool = False) -> int:
    if config.memory is None:
        return 0
    declared = config.memory.weights(config.backbone).values()
    return len(config.memory.sites) * sum(math.prod(w.shape) for w in declared if w.matrix or not matrices_only)


def _mixing_matrices(config: ModelConfig) -> int:
    """Parameters of the projections of the hyper-connections and of the head that merges the branches."""
    m, d = config.branches, config.width
    return config.n_connections * (2 + m) * m * m * d + m * m * d if m > 1 else 0


def count_parameters(config: ModelConfig) -> ParameterCounts:
    """Count the parameters of `engram.model.Transformer(config)`."""
    d, m, moe, memory = config.width, config.branches, config.moe, config.memory
    expert = 3 * d * moe.expert_width
    mixing_constants = config.n_connections * ((2 + m) * m + 3) + m + 1 if m > 1 else 0
    return ParameterCounts(
        embedding=(1 if config.tie_embeddings else 2) * config.vocab_size * d,
        attention=config.n_layers * (config.attention.matrices(d) + config.attention.norms()),
        router=config.n_moe_layers * moe.n_routed_experts * d,
        shared_experts=config.n_moe_layers * 3 * d * moe.shared_width,
        routed_experts=config.n_moe_layers * moe.n_routed_experts * expert,
        dense=moe.n_dense_layers * 3 * d * moe.dense_width,
        norms=(2 * config.n_layers + 1) * d,
        hyper_connections=_mixing_matrices(config) + mixing_constants,
        memory_weights=_memory_weights(config),
        memory_tables=table_rows(memory) * memory.row_dim if memory else 0,
        routed_experts_active=config.n_moe_layers * moe.top_k * expert,
        memory_rows_active=len(memory.sites) * memory.memory_dim if memory else 0,
    )


def train_flops_per_token(config: ModelConfig) -> int:
    """6 P_active: what the paper calls training FLOPs per token."""
    return 6 * count_parameters(config).p_active


def model_flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """FLOPs of all matrix products for one training token: forward 2 per weight used, backward twice that.

    Unlike the paper's count it includes the LM head and the attention scores (causal: half of T x T), and leaves out whatever is not a
    matrix product (norms, convolution, table rows).
    """
    counts, d, attention = count_parameters(config), config.width, config.attention
    weights = config.n_layers * attention.matrices(d) + counts.router + counts.shared_experts + counts.dense + counts.routed_experts_active
    weights += config.vocab_size * d + _mixing_matrices(config) + _memory_weights(config, matrices_only=True)
    scores_and_values = config.n_layers * (attention.scores_width(d) + attention.values_width(d)) * seq_len // 2
    return 6 * (weights + scores_and_values)


_PROCESS_BYTES = 580_000_000
"""A worker with PyTorch and Ray loaded and its share of the corpus mapped, measured."""


def training_memory_bytes(config: ModelConfig, tokens_at_once: int) -> int:
    """Rough resident memory of a training process, in bytes: weights, gradients and Adam's moments in fp32, activations of a pass."""
    counts, d, moe, memory = count_parameters(config), config.width, config.moe, config.memory
    dense = counts.p_total + counts.p_embedding - counts.memory_tables
    per_layer = 24 * d + moe.top_k * (4 * d + 5 * moe.expert_width) + 5 * moe.shared_width + 4 * moe.n_routed_experts
    if config.branches > 1:
        per_layer += 2 * config.branches * (3 * d + 4 * config.branches)  # two connections keep the branches before and after
    lookups = len(memory.sites) * (12 * config.branches * d + 3 * memory.memory_dim) if memory else 0
    activations = 4 * tokens_at_once * (config.n_layers * per_layer + lookups + 6 * d)
    return _PROCESS_BYTES + 16 * dense + 12 * counts.memory_tables + activations
