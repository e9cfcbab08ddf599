"""Every setting of a model and of its training: frozen, validated, hashable.

A config says everything that can change a result and nothing else: the devices, folders and
intervals of one run are not here. Unknown fields are errors.
"""

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FrozenConfig(BaseModel):
    """Base of all configs: immutable, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AttentionConfig(FrozenConfig):
    """Multi-head causal attention with rotary positions."""

    n_heads: int = Field(ge=1)
    """Heads; the head dimension is width / n_heads."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies (paper, 4.1)."""
    key_shift: bool = True
    """Take half of each head's key channels from the previous position, so that one layer is enough to copy. Meant to
    bring the onset of copying forward in every trial alike (docs/model.md). No parameters."""


class MoEConfig(FrozenConfig):
    """A DeepSeekMoE layer: one shared SwiGLU expert and top-k of n routed ones."""

    n_routed_experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    """Routed experts that a token visits."""
    expert_width: int = Field(ge=1)
    """Inner width of a routed expert."""
    shared_width: int = Field(ge=0)
    """Inner width of the shared expert. The allocation uses it to keep P_active equal over rho."""
    n_dense_layers: int = Field(default=0, ge=0)
    """Leading layers with a dense SwiGLU in place of the experts."""
    dense_width: int = Field(default=0, ge=0)
    """Inner width of those dense layers."""
    balance_step: float = Field(default=0.005, ge=0)
    """Step of the auxiliary-loss-free balancing bias, per optimiser step."""
    route_scale: float = Field(default=1.0, gt=0)
    """Factor on the normalised gate weights of the routed experts."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_k > self.n_routed_experts:
            raise ValueError(f"top_k is {self.top_k}, more than n_routed_experts = {self.n_routed_experts}")
        if self.n_dense_layers and not self.dense_width:
            raise ValueError("dense_width must be at least 1 when n_dense_layers is not 0")
        return self


class EngramConfig(FrozenConfig):
    """The Engram memory (paper, 2.2 - 2.4)."""

    layers: tuple[int, ...] = Field(min_length=1)
    """Layers that have a memory, counted from 0 (the paper's layer 2 is 1 here, as in its public module)."""
    table_sizes: tuple[int, ...] = Field(min_length=1)
    """Requested rows of each head's table, one number for each order 2..N. The real sizes are the next unused primes."""
    n_heads: int = Field(ge=1)
    """Hash heads for each order (K)."""
    memory_dim: int = Field(ge=1)
    """Length of the memory vector of a token, all orders and heads together (d_mem)."""
    gate: Literal["plain", "signed_sqrt"] = "plain"
    """`plain` is the paper's equation, `signed_sqrt` the public module's."""
    projection_bias: bool = False
    """Bias on the key and value projections, as in the public module; the paper's equation has none."""
    conv_kernel: int = Field(default=4, ge=0)
    """Taps of the short causal convolution; 0 leaves the convolution out. Its dilation is N."""
    compression: bool = True
    """Hash canonical ids (paper, 2.2) instead of raw token ids."""
    hash_seed: int = Field(default=0, ge=0)

    @property
    def max_ngram(self) -> int:
        """N, the largest order."""
        return len(self.table_sizes) + 1

    @property
    def heads_per_layer(self) -> int:
        """Rows that one token reads in one layer: (N - 1) K."""
        return len(self.table_sizes) * self.n_heads

    @property
    def row_dim(self) -> int:
        """Numbers in one table row."""
        return self.memory_dim // self.heads_per_layer

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.memory_dim % self.heads_per_layer:
            raise ValueError(f"memory_dim is {self.memory_dim}; it must be a multiple of the {self.heads_per_layer} heads of all orders")
        if min(self.table_sizes) < 2:
            raise ValueError(f"table_sizes are {list(self.table_sizes)}; each must be at least 2")
        if len(set(self.layers)) != len(self.layers) or min(self.layers) < 0:
            raise ValueError(f"layers are {list(self.layers)}; they must be distinct and not negative")
        return self


class ModelConfig(FrozenConfig):
    """A decoder-only sparse language model."""

    vocab_size: int = Field(ge=2)
    width: int = Field(ge=2)
    """Size of the residual stream (d)."""
    n_layers: int = Field(ge=1)
    branches: int = Field(default=1, ge=1, le=1)
    """Residual branches (M). Hidden states are [B, T, M, d]; only M = 1 can be trained so far."""
    attention: AttentionConfig
    moe: MoEConfig
    engram: EngramConfig | None = None
    """None: no memory, the pure MoE of rho = 1."""
    norm_eps: float = Field(default=1e-6, gt=0)
    embedding_init_std: float = Field(default=0.3, gt=0)
    """Small values (0.02) let routing collapse in the first steps of small models."""
    table_init_std: float = Field(default=0.02, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.attention.n_heads or (self.width // self.attention.n_heads) % 2:
            raise ValueError(f"attention.n_heads is {self.attention.n_heads}; width {self.width} must split into heads of an even size")
        if self.moe.n_dense_layers > self.n_layers:
            raise ValueError(f"moe.n_dense_layers is {self.moe.n_dense_layers}, more than n_layers = {self.n_layers}")
        if self.engram and max(self.engram.layers) >= self.n_layers:
            raise ValueError(
                f"engram.layers are {list(self.engram.layers)}; with n_layers = {self.n_layers} they go from 0 to {self.n_layers - 1}"
            )
        return self

    @property
    def head_dim(self) -> int:
        return self.width // self.attention.n_heads

    @property
    def n_moe_layers(self) -> int:
        return self.n_layers - self.moe.n_dense_layers


class TrainConfig(FrozenConfig):
    """How a model is trained. Lengths are in optimiser steps, fractions are of `steps`."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Sequences in a step."""
    seq_len: int = Field(ge=8)
    """Tokens that are predicted in one sequence (T)."""
    learning_rate: float = Field(gt=0)
    table_lr_multiplier: float = Field(default=5.0, gt=0)
    """Learning rate of the memory tables as a multiple (paper, 4.1: 5)."""
    weight_decay: float = Field(default=0.1, ge=0)
    """On matrices only; never on tables, norms and embeddings (paper, 4.1)."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    adam_eps: float = Field(default=1e-8, gt=0)
    warmup_fraction: float = Field(default=0.03, ge=0, le=1)
    decay_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps at the end over which the rate falls linearly to `final_lr_fraction`."""
    final_lr_fraction: float = Field(default=0.0, ge=0, le=1)
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient, dense weights and table rows together."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Autocast of the matrix multiplications; weights are fp32 always. `auto`: bf16 where the hardware has it."""
    val_tokens: int = Field(default=131_072, ge=1)
    """Validation tokens, rounded down to whole sequences; always the same documents."""
    n_validations: int = Field(default=4, ge=1)
    """Validations in a trial, evenly spaced; the last is at the end."""

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.seq_len

    @property
    def tokens(self) -> int:
        return self.steps * self.tokens_per_step


class TrialConfig(FrozenConfig):
    """Everything one trial is; equal configs are the same trial on every machine."""

    size: str
    rho: float = Field(ge=0, le=1)
    """Share of the inactive parameters that goes to routed experts."""
    seed: int = Field(ge=0)
    """Seed of initialisation and data order."""
    budget_flops: float = Field(gt=0)
    """Training FLOPs that were asked for, in the paper's count (6 P_active per token)."""
    model: ModelConfig
    train: TrainConfig
    corpus_fingerprint: str
    tokenizer_fingerprint: str

    @property
    def id(self) -> str:
        """12 hexadecimal digits of the SHA-256 of this config in canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]
