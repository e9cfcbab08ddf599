"""DeepSeekMoE: a shared expert and routed experts, balanced without an auxiliary loss."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engram.config.model import ModelConfig
from engram.kernels import expert_ops, gpu, ops
from engram.model.layers import Linear
from engram.model.precision import small_product_dtype


class SwiGLU(nn.Module):
    """`out(silu(gate x) * (up x))`; gate and up are one matrix."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * inner)
        self.out = Linear(inner, width)

    def forward(self, x: Tensor, *, added: Tensor | None = None) -> Tensor:
        """[..., d] -> [..., d], plus what is `added` [..., d], which may be overwritten"""
        return ops.feed_forward(x, self.gate_up.weight, self.out.weight, added)


class Router(nn.Module):
    """Sigmoid scores, top-k by score plus balancing bias, gate weights from the scores alone.

    The bias (DeepSeek-V3, 2.1.2) is added for the selection only; `update_bias` nudges it by the sign of the load error after each
    optimiser step. Loads are counted in training mode only.
    """

    bias: Tensor
    """fp32 [E]"""
    load: Tensor
    """Tokens since the last `update_bias`, fp32 [E]."""
    window_load: Tensor
    """Tokens since the last `take_window_load`, for the log, fp32 [E]."""
    idle_steps: Tensor
    """Optimiser steps since a token was last sent to the expert, fp32 [E]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        moe = config.moe
        self.top_k, self.balance_step, self.route_scale = moe.top_k, moe.balance_step, moe.route_scale
        self.weight = nn.Parameter(torch.empty(moe.n_routed_experts, config.width))
        self.register_buffer("bias", torch.zeros(moe.n_routed_experts))
        self.register_buffer("load", torch.zeros(moe.n_routed_experts), persistent=False)
        self.register_buffer("window_load", torch.zeros(moe.n_routed_experts), persistent=False)
        self.register_buffer("idle_steps", torch.zeros(moe.n_routed_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, d] -> gate weights fp32 [N, k] (summing to `route_scale`), expert numbers int64 [N, k], the tokens (`route_tokens`)"""
        return expert_ops.route_tokens(x, self.weight, self.bias, self.top_k, self.route_scale)

    @torch.no_grad()
    def count(self, tokens_per_expert: Tensor) -> None:
        """Add the load int64 [E] of one training pass."""
        if gpu.usable(self.load):
            from engram.kernels.gpu import balancing

            balancing.count(tokens_per_expert, self.load, self.window_load)
            return
        self.load += tokens_per_expert
        self.window_load += tokens_per_expert

    @torch.no_grad()
    def update_bias(self) -> None:
        """Move the bias of every expert one step against its load error; to be called once per optimiser step."""
        self.bias += self.balance_step * (self.load.mean() - self.load).sign()
        self.idle_steps.copy_(torch.where(self.load > 0, 0.0, self.idle_steps + 1))  # in place: a captured step keeps its addresses
        self.load.zero_()

    def take_window_load(self) -> Tensor:
        """Tokens per expert, fp32 [E], since the last call."""
        taken = self.window_load.clone()
        self.window_load.zero_()
        return taken


@torch.no_grad()
def balance(routers: Sequence[Router]) -> None:
    """`update_bias` of all routers of a model."""
    if routers and gpu.usable(routers[0].bias):
        from engram.kernels.gpu import balancing

        biases, loads, idle_steps = ([getattr(router, part) for router in routers] for part in ("bias", "load", "idle_steps"))
        balancing.balance(biases, loads, idle_steps, routers[0].balance_step)
        return
    for router in routers:
        router.update_bias()


class RoutedExperts(nn.Module):
    """SwiGLU experts stored stacked and run as two grouped matrix products over tokens sorted by expert."""

    def __init__(self, n_experts: int, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(n_experts, width, 2 * inner))
        self.out = nn.Parameter(torch.empty(n_experts, inner, width))

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [N, d], gate weights [N, k], experts int64 [N, k] -> mixture [N, d], load int64 [E], the tokens (`route_tokens`)."""
        done = expert_ops.routed_experts(x, self.gate_up, self.out, weights, chosen)
        if done is not None:
            return done
        n, k = chosen.shape
        order = chosen.flatten().argsort(stable=True)  # [N k]: assignments by expert
        load = order.new_zeros(len(self.gate_up)).scatter_add_(0, chosen.flatten(), torch.ones_like(order))  # bincount makes a GPU wait
        ends = load.cumsum(0).to(torch.int32)  # [E]: grouped_mm takes the end of each group
        place = torch.empty_like(order).scatter_(0, order, torch.arange(n * k, device=order.device))

        dtype = small_product_dtype(x)  # grouped products have no autocast rule of their own
        # F.embedding is a row gather with a fast backward pass on the CPU; indexing is not.
        rows = F.embedding(order // k, x.to(dtype))  # [N k, d]
        gate, up = F.grouped_mm(rows, self.gate_up.to(dtype), offs=ends).chunk(2, dim=-1)  # [N k, w] each
        rows = F.grouped_mm(F.silu(gate) * up, self.out.to(dtype), offs=ends)  # [N k, d]
        rows = F.embedding(place, rows).view(n, k, -1)  # [N, k, d]: back in the order of tokens
        return torch.einsum("nk,nkd->nd", weights.to(dtype), rows), load, x


class MoE(nn.Module):
    """The shared expert plus the gated sum of each token's routed experts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        moe = config.moe
        self.router = Router(config)
        self.experts = RoutedExperts(moe.n_routed_experts, config.width, moe.expert_width)
        self.shared = SwiGLU(config.width, moe.shared_width) if moe.shared_width else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]"""
        flat = x.flatten(0, 1)  # [N, d]
        weights, chosen, tokens = self.router(flat)
        mixed, load, tokens = self.experts(tokens, weights, chosen)
        if self.training:
            self.router.count(load)
        if self.shared is None:
            return mixed.view_as(x)
        if tokens is flat:
            return mixed.view_as(x) + self.shared(x)
        return self.shared(tokens, added=mixed).view_as(x)
