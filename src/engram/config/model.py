"""Every setting of a model."""

import math
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from engram.frozen import FrozenConfig
from engram.memory.designs.base import Backbone, Memory
from engram.memory.designs.registry import DESIGNS, NONE

if TYPE_CHECKING:
    AnyMemory = Memory
else:
    AnyMemory = Annotated[reduce(or_, DESIGNS.values()), Field(discriminator="design")]


class YarnConfig(FrozenConfig):
    """YaRN: rotary frequencies stretched for sequences longer than those trained on (Peng et al., 2023, arXiv 2309.00071)."""

    original_length: int = Field(ge=2)
    """Sequence length that the model was trained on before the extension."""
    scale: float = Field(default=10.0, ge=1)
    """How many times longer sequences may become (paper, 5: 10)."""
    alpha: float = Field(default=1.0, gt=0)
    """Channels that turn fewer times than this within `original_length` are interpolated by `scale`."""
    beta: float = Field(default=32.0, gt=0)
    """Channels that turn more often than this keep their frequency; in between, the two are blended."""
    factor: float = Field(default=0.707, ge=0)
    """Attention scores are multiplied by (0.1 factor ln(scale) + 1)^2 (DeepSeek-V2's mscale)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta <= self.alpha:
            raise ValueError(f"beta is {self.beta:g}; it must be more than alpha = {self.alpha:g}")
        return self

    @property
    def score_scale(self) -> float:
        """Factor on the attention scores."""
        return (0.1 * self.factor * math.log(self.scale) + 1) ** 2


class RopeConfig(FrozenConfig):
    """Rotary positions."""

    theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies (paper, 4.1)."""
    yarn: YarnConfig | None = None


class BaseAttentionConfig(FrozenConfig):
    """What both kinds of attention share."""

    n_heads: int = Field(ge=1)
    rope: RopeConfig = RopeConfig()
    key_shift: bool = True
    """Take half of each head's key channels from the previous position, so that one layer is enough to copy. It is meant to bring forward
    the onset of copying in every trial alike (docs/model.md), and has no parameters."""


class MultiHeadAttentionConfig(BaseAttentionConfig):
    """Plain multi-head causal attention; the head dimension is width / n_heads."""

    kind: Literal["mha"] = "mha"

    @classmethod
    def for_shape(cls, width: int, n_heads: int) -> Self:
        return cls(n_heads=n_heads)

    def check(self, width: int) -> None:
        if width % self.n_heads or (width // self.n_heads) % 2:
            raise ValueError(f"attention.n_heads is {self.n_heads}; width {width} must split into heads of an even size")

    def rope_width(self, width: int) -> int:
        """Rotary channels of a head."""
        return width // self.n_heads

    def scores_width(self, width: int) -> int:
        """Query channels of all heads."""
        return width

    def values_width(self, width: int) -> int:
        """Value channels of all heads."""
        return width

    def matrices(self, width: int) -> int:
        """Parameters of the projections."""
        return 4 * width * width

    def norms(self) -> int:
        """Parameters of norms inside attention."""
        return 0


class LatentAttentionConfig(BaseAttentionConfig):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, 2.1): keys and values from a low-rank latent, rotary channels apart."""

    kind: Literal["mla"] = "mla"
    head_dim: int = Field(ge=2)
    """Query and key channels of a head that do not depend on the position."""
    rope_dim: int = Field(ge=2)
    """Rotary channels: further query channels of each head, and key channels that all heads share."""
    value_dim: int = Field(ge=1)
    """Value channels of a head."""
    kv_rank: int = Field(ge=1)
    """Length of the latent that keys and values are made from; with the rotary key, all that the cache keeps."""
    query_rank: int | None = Field(default=None, ge=1)
    """Length of the queries' latent; null makes queries from the input directly."""

    @classmethod
    def for_shape(cls, width: int, n_heads: int) -> Self:
        # DeepSeek-V3's proportions: half as many rotary channels as others, values as long as keys; a wider latent, as widths are small.
        head = width // n_heads
        return cls(n_heads=n_heads, head_dim=head, rope_dim=2 * max(1, head // 4), value_dim=head, kv_rank=max(1, width // 4))

    def check(self, width: int) -> None:
        if self.rope_dim % 2:
            raise ValueError(f"attention.rope_dim is {self.rope_dim}; it must be even")
        if self.key_shift and self.head_dim % 2:
            raise ValueError(f"attention.head_dim is {self.head_dim}; with key_shift it must be even")

    def rope_width(self, width: int) -> int:
        """Rotary channels of a head."""
        return self.rope_dim

    def scores_width(self, width: int) -> int:
        """Query channels of all heads."""
        return self.n_heads * (self.head_dim + self.rope_dim)

    def values_width(self, width: int) -> int:
        """Value channels of all heads."""
        return self.n_heads * self.value_dim

    def matrices(self, width: int) -> int:
        """Parameters of the projections."""
        queries = self.scores_width(width)
        query = width * queries if self.query_rank is None else self.query_rank * (width + queries)
        down = width * (self.kv_rank + self.rope_dim)
        up = self.kv_rank * self.n_heads * (self.head_dim + self.value_dim)
        return query + down + up + self.values_width(width) * width

    def norms(self) -> int:
        """Parameters of norms inside attention."""
        return self.kv_rank + (self.query_rank or 0)


AttentionConfig = Annotated[MultiHeadAttentionConfig | LatentAttentionConfig, Field(discriminator="kind")]
ATTENTIONS: dict[str, type[MultiHeadAttentionConfig] | type[LatentAttentionConfig]] = {
    "mha": MultiHeadAttentionConfig,
    "mla": LatentAttentionConfig,
}


class MoEConfig(FrozenConfig):
    """A DeepSeekMoE layer: one shared SwiGLU expert and top-k of n routed ones."""

    n_routed_experts: int = Field(ge=0)
    """0 only if all layers are dense."""
    top_k: int = Field(ge=0)
    """Routed experts that a token visits."""
    expert_width: int = Field(ge=0)
    """Inner width of a routed expert."""
    shared_width: int = Field(ge=0)
    """Inner width of the shared expert. The allocation adjusts it to keep P_active equal across rhos."""
    n_dense_layers: int = Field(default=0, ge=0)
    """Leading layers with a dense SwiGLU instead of experts."""
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


class ModelConfig(FrozenConfig):
    """A decoder-only sparse language model."""

    vocab_size: int = Field(ge=2)
    width: int = Field(ge=2)
    """Size of the residual stream (d)."""
    n_layers: int = Field(ge=1)
    branches: int = Field(default=1, ge=1, le=16)
    """Residual branches (M), joined by manifold-constrained hyper-connections; 1 is the plain residual stream. Hidden states are
    [B, T, M, d]."""
    attention: AttentionConfig
    moe: MoEConfig
    memory: AnyMemory | None = None
    """None (or design `none`): no memory, the pure MoE of rho = 1."""
    tie_embeddings: bool = False
    """Use one matrix for the vocabulary embedding and the head."""
    norm_eps: float = Field(default=1e-6, gt=0)
    embedding_init_std: float = Field(default=0.3, gt=0)
    """Small values (0.02) let routing collapse in the first steps of small models."""
    table_init_std: float = Field(default=0.02, ge=0)

    @field_validator("memory", mode="before")
    @classmethod
    def _none_is_a_design(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("design") == NONE:
            if len(value) > 1:
                raise ValueError(f"design none has no settings, but {', '.join(sorted(value.keys() - {'design'}))} is set")
            return None
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.attention.check(self.width)
        moe = self.moe
        if moe.n_dense_layers > self.n_layers:
            raise ValueError(f"moe.n_dense_layers is {moe.n_dense_layers}, more than n_layers = {self.n_layers}")
        if self.n_moe_layers and not (moe.n_routed_experts and moe.top_k and moe.expert_width):
            raise ValueError("moe.n_routed_experts, moe.top_k and moe.expert_width must be at least 1 where layers have experts")
        if self.memory is not None:
            self.memory.check(self.backbone)
        return self

    @property
    def n_moe_layers(self) -> int:
        return self.n_layers - self.moe.n_dense_layers

    @property
    def backbone(self) -> Backbone:
        """What memory designs may know of this model."""
        return Backbone(
            width=self.width,
            n_layers=self.n_layers,
            branches=self.branches,
            values_width=self.attention.values_width(self.width),
            norm_eps=self.norm_eps,
            residual_scale=self.residual_scale,
        )

    @property
    def residual_scale(self) -> float:
        """Factor on the initial standard deviation of weights whose outputs are summed in the residual stream."""
        return 1 / math.sqrt(2 * self.n_layers)

    @property
    def n_connections(self) -> int:
        """Hyper-connections: around attention and feed-forward of each layer, and around a memory that is not branch-wise."""
        if self.branches == 1:
            return 0
        memory = self.memory
        around_memory = len(memory.sites) if memory is not None and memory.site == "residual" and not memory.branchwise else 0
        return 2 * self.n_layers + around_memory
