"""Equality with implementations that someone else wrote: transformers' DeepSeek-V3 and DeepSeek-V4 modules, in float32."""

import pytest
import torch
from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3MoE, DeepseekV3RotaryEmbedding
from transformers.models.deepseek_v4.configuration_deepseek_v4 import DeepseekV4Config
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperConnection, DeepseekV4HyperHead

from engram.config.model import LatentAttentionConfig, ModelConfig, MoEConfig, MultiHeadAttentionConfig
from engram.history import History
from engram.model.attention import LatentAttention
from engram.model.generation import Cache
from engram.model.hyperconnection import SINKHORN_ITERATIONS, HyperConnection, HyperHead, doubly_stochastic, merged
from engram.model.moe import MoE
from engram.model.rotary import rotary_tables

TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
MOE = MoEConfig(n_routed_experts=8, top_k=3, expert_width=12, shared_width=24, route_scale=2.5)
WIDTH, HEADS = 32, 4


def model_config(attention=None, branches=4, moe=MOE) -> ModelConfig:
    attention = attention or MultiHeadAttentionConfig(n_heads=HEADS)
    return ModelConfig(vocab_size=50, width=WIDTH, n_layers=2, branches=branches, attention=attention, moe=moe)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randomise(module: torch.nn.Module, std: float = 0.15) -> None:
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=std)


# Hyper-connections


@pytest.fixture
def v4():
    return DeepseekV4Config(hidden_size=WIDTH, hc_mult=4, hc_sinkhorn_iters=SINKHORN_ITERATIONS, hc_eps=1e-6, rms_norm_eps=1e-6)


def test_hyper_connection(v4):
    ours, theirs = HyperConnection(model_config(), 0), DeepseekV4HyperConnection(v4)
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    hidden = torch.randn(2, 9, 4, WIDTH)
    post, residual, read = theirs(hidden)
    our_pre, our_post, our_residual = ours.mixtures(hidden)  # [M, N], [M, N], [M, M, N]
    torch.testing.assert_close(merged(our_pre, hidden), read, **TOLERANCE)
    torch.testing.assert_close(our_post.t().view_as(post), post, **TOLERANCE)
    torch.testing.assert_close(our_residual.permute(2, 0, 1).reshape(residual.shape), residual, **TOLERANCE)
    # As DeepseekV4DecoderLayer joins a sublayer's output with the branches.
    expected = post.unsqueeze(-1) * read.tanh().unsqueeze(-2) + torch.matmul(residual.transpose(-1, -2), hidden)
    torch.testing.assert_close(ours(hidden, torch.tanh), expected, **TOLERANCE)


def test_hyper_head(v4):
    ours, theirs = HyperHead(model_config()), DeepseekV4HyperHead(v4)
    randomise(ours)
    theirs.load_state_dict({f"hc_{name}": value for name, value in ours.state_dict().items()})
    hidden = torch.randn(2, 9, 4, WIDTH)
    torch.testing.assert_close(ours(hidden), theirs(hidden), **TOLERANCE)


def test_residual_mixing_is_doubly_stochastic():
    matrices = doubly_stochastic(torch.randn(4, 4, 50, dtype=torch.float64))
    assert (matrices > 0).all()
    assert torch.allclose(matrices.sum(1), torch.ones(4, 50, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(matrices.sum(0), torch.ones(4, 50, dtype=torch.float64), atol=1e-5)


def test_gradients_of_the_hand_written_parts():
    connection = HyperConnection(model_config(branches=3), 1).double()
    randomise(connection)
    hidden = torch.randn(1, 2, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    fn = connection.fn.detach().clone().requires_grad_()

    def whole(hidden: torch.Tensor, fn: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(connection, {"fn": fn}, (hidden, torch.tanh))

    assert torch.autograd.gradcheck(whole, (hidden, fn), atol=1e-6)


# Multi-head latent attention

ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 10.0, "beta_slow": 1, "beta_fast": 32, "mscale": 0.707,
    "mscale_all_dim": 0.707, "original_max_position_embeddings": 512,
}  # fmt: skip


def latent(query_rank, yarn, rope_dim=8) -> LatentAttentionConfig:
    rope = {"yarn": {"original_length": 512, "scale": 10, "alpha": 1, "beta": 32, "factor": 0.707}} if yarn else {}
    return LatentAttentionConfig(
        n_heads=HEADS, head_dim=10, rope_dim=rope_dim, value_dim=12, kv_rank=14, query_rank=query_rank, rope=rope, key_shift=False
    )


def v3_attention(query_rank, yarn, interleaved, rope_dim=8) -> tuple[DeepseekV3Attention, DeepseekV3RotaryEmbedding]:
    config = DeepseekV3Config(
        hidden_size=WIDTH, num_attention_heads=HEADS, num_key_value_heads=HEADS, q_lora_rank=query_rank, kv_lora_rank=14,
        qk_nope_head_dim=10, qk_rope_head_dim=rope_dim, v_head_dim=12, rope_parameters=YARN if yarn else ROPE, rope_interleave=interleaved,
        max_position_embeddings=5120, attn_implementation="eager",
    )  # fmt: skip
    attention = DeepseekV3Attention(config, 0)
    randomise(attention)
    return attention, DeepseekV3RotaryEmbedding(config)


def to_halves(weight: torch.Tensor, blocks: int, rope_dim: int, interleaved: bool) -> torch.Tensor:
    """Reorder the rotary rows, the last of each block, from pairs (2 i, 2 i + 1) to pairs (i, i + c / 2)."""
    rows = weight.unflatten(0, (blocks, -1)).clone()
    if interleaved:
        turned = rows[:, -rope_dim:]
        rows[:, -rope_dim:] = torch.cat([turned[:, 0::2], turned[:, 1::2]], dim=1)
    return rows.flatten(0, 1)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("yarn", [False, True])
@pytest.mark.parametrize("query_rank", [None, 18])
@torch.no_grad()
def test_latent_attention(query_rank, yarn, interleaved):
    config = model_config(latent(query_rank, yarn))
    theirs, rotary = v3_attention(query_rank, yarn, interleaved)
    ours = LatentAttention(config, config.attention)
    state = theirs.state_dict()
    query = "q_proj.weight" if query_rank is None else "q_b_proj.weight"
    mapped = {
        "query.weight": to_halves(state[query], HEADS, 8, interleaved),
        "kv_down.weight": to_halves(state["kv_a_proj_with_mqa.weight"], 1, 8, interleaved),
        "kv_norm.weight": state["kv_a_layernorm.weight"],
        "kv_up.weight": state["kv_b_proj.weight"],
        "out.weight": state["o_proj.weight"],
    }
    if query_rank is not None:
        mapped |= {"query_down.weight": state["q_a_proj.weight"], "query_norm.weight": state["q_a_layernorm.weight"]}
    ours.load_state_dict(mapped)
    x, positions = torch.randn(2, 40, WIDTH), torch.arange(40)
    mask = torch.full((40, 40), float("-inf")).triu(1)[None, None]
    expected, _ = theirs(x, rotary(x, positions[None]), mask)
    tables = rotary_tables(config.attention.rope, 8, positions)
    torch.testing.assert_close(ours(x, tables, None, History()), expected, **TOLERANCE)
    cache = Cache()  # and token by token, from the latents
    for t in range(40):
        tables = rotary_tables(config.attention.rope, 8, cache.positions(1, x.device))
        step = ours(x[:, t : t + 1], tables, None, cache.at(0))
        cache.advance(1)
        torch.testing.assert_close(step, expected[:, t : t + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("yarn", [False, True])
def test_rotary_frequencies(yarn):
    """At a head of 64 channels, where YaRN keeps some frequencies, interpolates some and mixes the rest."""
    _, theirs = v3_attention(None, yarn, False, rope_dim=64)
    positions = torch.arange(5000)
    cos, sin = theirs(torch.zeros(1), positions[None])
    ours = rotary_tables(latent(None, yarn, rope_dim=64).rope, 64, positions)
    torch.testing.assert_close(ours[0], cos[0, :, :32], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1], sin[0, :, :32], rtol=1e-5, atol=1e-5)


# DeepSeekMoE


@pytest.fixture
def moe_pair():
    config = DeepseekV3Config(
        hidden_size=WIDTH, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=12, n_shared_experts=2, n_group=1, topk_group=1,
        routed_scaling_factor=2.5, norm_topk_prob=True,
    )  # fmt: skip
    theirs, ours = DeepseekV3MoE(config), MoE(model_config())
    randomise(theirs)
    torch.nn.init.normal_(theirs.gate.e_score_correction_bias, std=0.3)
    with torch.no_grad():
        ours.router.weight.copy_(theirs.gate.weight)
        ours.router.bias.copy_(theirs.gate.e_score_correction_bias)
        ours.experts.gate_up.copy_(theirs.experts.gate_up_proj.mT)
        ours.experts.out.copy_(theirs.experts.down_proj.mT)
        shared = theirs.shared_experts
        ours.shared.gate_up.weight.copy_(torch.cat([shared.gate_proj.weight, shared.up_proj.weight]))
        ours.shared.out.weight.copy_(shared.down_proj.weight)
    return ours.eval(), theirs.eval()


@torch.no_grad()
def test_routing(moe_pair):
    """Scores, selection with bias, normalisation and scaling."""
    ours, theirs = moe_pair
    x = torch.randn(60, WIDTH)
    _, their_weights, their_chosen = theirs.gate(x)
    weights, chosen, _ = ours.router(x)
    dense, their_dense = (torch.zeros(60, 8).scatter(1, c, w) for c, w in ((chosen, weights), (their_chosen, their_weights)))
    torch.testing.assert_close(dense, their_dense, **TOLERANCE)
    unbiased = (x @ ours.router.weight.T).sigmoid().topk(3).indices
    assert (unbiased.sort().values != chosen.sort().values).any(), "the bias changed no selection: this test would not notice it"


@torch.no_grad()
def test_mixture(moe_pair):
    ours, theirs = moe_pair
    x = torch.randn(3, 20, WIDTH)
    torch.testing.assert_close(ours(x), theirs(x), **TOLERANCE)
