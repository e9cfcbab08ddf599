"""Parameters and FLOPs of a config, exactly, without building the model.

The counts follow the paper (3.1): P_total leaves out the vocabulary embedding and the LM head; P_active are
the parameters that one token uses; P_sparse = P_total - P_active are the inactive experts and the table
rows that are not read. FLOPs of training are counted as the paper does, 6 P_active a token.
"""

from dataclasses import dataclass

from engram.config import EngramConfig, ModelConfig
from engram.primes import head_table_sizes


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters by group; the groups sum to the built module's parameters."""

    embedding: int
    """Vocabulary embedding and LM head, which P_total leaves out."""
    attention: int
    router: int
    shared_experts: int
    routed_experts: int
    dense: int
    """Dense feed-forward of leading layers."""
    norms: int
    engram_fusion: int
    """Projections, norms and convolution of the memory: used by every token."""
    engram_tables: int
    routed_experts_active: int
    """Part of `routed_experts` that one token uses."""
    engram_rows_active: int
    """Part of `engram_tables` that one token reads."""

    @property
    def p_total(self) -> int:
        return self._always + self.routed_experts + self.engram_tables

    @property
    def p_active(self) -> int:
        return self._always + self.routed_experts_active + self.engram_rows_active

    @property
    def p_sparse(self) -> int:
        return self.p_total - self.p_active

    @property
    def p_engram(self) -> int:
        return self.engram_tables

    @property
    def p_embedding(self) -> int:
        return self.embedding

    @property
    def rho(self) -> float:
        """The allocation that the counts realise: inactive expert parameters / P_sparse; 1 when nothing is inactive."""
        return (self.routed_experts - self.routed_experts_active) / self.p_sparse if self.p_sparse else 1.0

    @property
    def _always(self) -> int:
        return self.attention + self.router + self.shared_experts + self.dense + self.norms + self.engram_fusion


def table_rows(engram: EngramConfig) -> int:
    """Rows of all tables of all layers (the slots)."""
    sizes = head_table_sizes(engram.table_sizes, engram.n_heads, len(engram.layers))
    return sum(rows for layer in sizes for order in layer for rows in order)


def engram_fusion_parameters(config: ModelConfig, engram: EngramConfig) -> int:
    """Parameters of key and value projections, norms and convolution, all memory layers together."""
    d, branches = config.width, config.branches
    projections = (branches + 1) * d * (engram.memory_dim + (1 if engram.projection_bias else 0))
    norms = 2 * branches * d
    convolution = branches * d * (1 + engram.conv_kernel) if engram.conv_kernel else 0
    return len(engram.layers) * (projections + norms + convolution)


def count_parameters(config: ModelConfig) -> ParameterCounts:
    """Count the parameters of `engram.model.Transformer(config)`."""
    d, moe, engram = config.width, config.moe, config.engram
    expert = 3 * d * moe.expert_width
    return ParameterCounts(
        embedding=2 * config.vocab_size * d,
        attention=config.n_layers * 4 * d * d,
        router=config.n_moe_layers * moe.n_routed_experts * d,
        shared_experts=config.n_moe_layers * 3 * d * moe.shared_width,
        routed_experts=config.n_moe_layers * moe.n_routed_experts * expert,
        dense=moe.n_dense_layers * 3 * d * moe.dense_width,
        norms=(2 * config.n_layers + 1) * d,
        engram_fusion=engram_fusion_parameters(config, engram) if engram else 0,
        engram_tables=table_rows(engram) * engram.row_dim if engram else 0,
        routed_experts_active=config.n_moe_layers * moe.top_k * expert,
        engram_rows_active=len(engram.layers) * engram.memory_dim if engram else 0,
    )


def train_flops_per_token(config: ModelConfig) -> int:
    """6 P_active: what the paper calls training FLOPs per token."""
    return 6 * count_parameters(config).p_active


def model_flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """FLOPs of all matrix products of one training token: forward 2 per weight used, backward twice that.

    Unlike the paper's count it has the LM head and the attention scores (causal: half of T x T), and leaves out
    what is not a matrix product (norms, convolution, table rows).
    """
    counts, d, engram = count_parameters(config), config.width, config.engram
    weights = counts.attention + counts.router + counts.shared_experts + counts.dense + counts.routed_experts_active + config.vocab_size * d
    if engram:
        weights += len(engram.layers) * (config.branches + 1) * d * engram.memory_dim
    scores_and_values = config.n_layers * 2 * d * seq_len // 2
    return 6 * (weights + scores_and_values)


_PROCESS_BYTES = 580_000_000
"""A worker with PyTorch and Ray loaded and its share of the corpus mapped, as measured."""


def training_memory_bytes(config: ModelConfig, tokens_at_once: int) -> int:
    """Rough resident memory of a training process: weights, gradients and Adam's moments in fp32, activations of a pass."""
    counts, d, moe = count_parameters(config), config.width, config.moe
    dense = counts.p_total + counts.p_embedding - counts.engram_tables
    per_layer = 24 * d + moe.top_k * (4 * d + 5 * moe.expert_width) + 5 * moe.shared_width + 4 * moe.n_routed_experts
    memory = len(config.engram.layers) * (12 * d + 3 * config.engram.memory_dim) if config.engram else 0
    activations = 4 * tokens_at_once * (config.n_layers * per_layer + memory + 6 * d)
    return _PROCESS_BYTES + 16 * dense + 12 * counts.engram_tables + activations
