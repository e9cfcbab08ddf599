"""The paper's own models (4.1, Table 5), as configs that can be counted and built.

The paper does not print the expert width, the attention's dimensions or the embedding's ties. These reproduce its counts: experts
of width 1536, a dense first layer of eight of them, latent attention with 32 heads of 128 + 64 channels and values of 128, KV rank
480 and no query rank, and one 129,280 x 2,560 matrix for both embedding and head. (With DeepSeek-V3's KV rank of 512 the hyper-connections
and the memory's projections would bring engram-27b to 3.84 B activated parameters, 1.04 % above the 3.8 B printed.)
"""

from engram.config.model import LatentAttentionConfig, ModelConfig, MoEConfig
from engram.memory.designs.engram import Engram

_EXPERT_WIDTH = 1536
_DENSE_WIDTH = 8 * _EXPERT_WIDTH
_LAYERS = 30


def _backbone(moe: MoEConfig, memory: Engram | None) -> ModelConfig:
    attention = LatentAttentionConfig(n_heads=32, head_dim=128, rope_dim=64, value_dim=128, kv_rank=480, key_shift=False)
    return ModelConfig(
        vocab_size=129_280,
        width=2560,
        n_layers=_LAYERS,
        branches=4,
        attention=attention,
        moe=moe,
        memory=memory,
        tie_embeddings=True,
    )


def _dense() -> MoEConfig:
    return MoEConfig(n_routed_experts=0, top_k=0, expert_width=0, shared_width=0, n_dense_layers=_LAYERS, dense_width=_DENSE_WIDTH)


def _moe(n_routed_experts: int) -> MoEConfig:
    return MoEConfig(
        n_routed_experts=n_routed_experts,
        top_k=6,
        expert_width=_EXPERT_WIDTH,
        shared_width=2 * _EXPERT_WIDTH,
        n_dense_layers=1,
        dense_width=_DENSE_WIDTH,
    )


def _engram(slots: int) -> Engram:
    """Layers 2 and 15, orders 2 and 3, 8 heads each, vectors of 1280, `slots` rows for each head of an order."""
    return Engram(layers=(1, 14), table_sizes=(slots, slots), n_heads=8, memory_dim=1280)


PRESETS: dict[str, ModelConfig] = {
    "dense-4b": _backbone(_dense(), None),
    "moe-27b": _backbone(_moe(72), None),
    "engram-27b": _backbone(_moe(55), _engram(2_262_400)),
    "engram-40b": _backbone(_moe(55), _engram(7_239_680)),
}
