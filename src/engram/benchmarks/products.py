"""The matrix products of a training step on their own: the time that PyTorch takes for nothing but these."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.benchmarks.results import Measured, ProductTime
from engram.benchmarks.timing import Case, Times, calls
from engram.config.model import ModelConfig, MultiHeadAttentionConfig


@dataclass(frozen=True)
class Product:
    """`batch` products [n, k] x [k, m], each with its two backward products, `count` times per step."""

    name: str
    batch: int
    n: int
    k: int
    m: int
    count: int
    wide: bool = False
    """Whether it is in fp32 whatever the precision."""

    @property
    def flops(self) -> int:
        """Per step."""
        return 3 * 2 * self.batch * self.n * self.k * self.m * self.count


def step_products(config: ModelConfig, sequences: int, seq_len: int, passes: int = 1) -> list[Product]:
    """The products of a step of `passes` passes of `sequences` sequences each.

    Each expert gets the mean number of tokens. Scores are taken with half of the keys, which is as much work as the causal half of them.
    """
    d, moe, tokens, attention = config.width, config.moe, sequences * seq_len, config.attention
    if not isinstance(attention, MultiHeadAttentionConfig):
        raise TypeError(f"products of {attention.kind} attention are not listed")
    heads, head_dim, layers, half = attention.n_heads, d // attention.n_heads, config.n_layers, seq_len // 2
    found = [
        Product("attention qkv", 1, tokens, d, 3 * d, layers),
        Product("attention scores", sequences * heads, seq_len, head_dim, half, layers),
        Product("attention mixing", sequences * heads, seq_len, half, head_dim, layers),
        Product("attention out", 1, tokens, d, d, layers),
    ]
    if moe.n_dense_layers:
        found += _feed_forward("dense", 1, tokens, d, moe.dense_width, moe.n_dense_layers)
    if config.n_moe_layers:
        experts = moe.n_routed_experts
        found.append(Product("router", 1, tokens, d, experts, config.n_moe_layers, wide=True))
        found += _feed_forward("experts", experts, math.ceil(tokens * moe.top_k / experts), d, moe.expert_width, config.n_moe_layers)
        if moe.shared_width:
            found += _feed_forward("shared expert", 1, tokens, d, moe.shared_width, config.n_moe_layers)
    if config.memory is not None:
        for name, weight in config.memory.weights(config.backbone).items():
            if weight.matrix:
                *stack, out, read = weight.shape
                found.append(Product(f"memory {name}", 1, tokens, read, math.prod(stack) * out, len(config.memory.sites)))
    found.append(Product("head", 1, tokens, d, config.vocab_size, 1))
    return [Product(p.name, p.batch, p.n, p.k, p.m, p.count * passes, p.wide) for p in found]


def _feed_forward(name: str, batch: int, tokens: int, d: int, width: int, count: int) -> list[Product]:
    return [
        Product(f"{name} gate and up", batch, tokens, d, 2 * width, count),
        Product(f"{name} out", batch, tokens, width, d, count),
    ]


def product_cases(products: list[Product], precision: str, device: torch.device, share: float) -> dict[str, Case]:
    """A case for each product and dtype: one product with its backward products."""
    return {
        _key(product, dtype): Case(calls(_product(product, dtype, device), device), share)
        for product in products
        for dtype in _types(product, precision)
    }


def product_times(products: list[Product], precision: str, times: Times) -> list[ProductTime]:
    """The times of `product_cases`: for each product, the dtype with the smaller median."""
    found = []
    for product in products:
        of_step = {
            dtype: Measured.of([seconds * product.count for seconds in times[_key(product, dtype)]]) for dtype in _types(product, precision)
        }
        dtype = min(of_step, key=lambda one: of_step[one].median)
        shape = (product.batch, product.n, product.k, product.m)
        found.append(ProductTime(product.name, shape, product.count, _NAMES[dtype], of_step[dtype], product.flops))
    return found


_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def _types(product: Product, precision: str) -> list[torch.dtype]:
    """Dtypes that training may use: instead of bf16 always also fp32, in which small products may be faster."""
    return [torch.float32] if product.wide or precision == "fp32" else [torch.bfloat16, torch.float32]


def _key(product: Product, dtype: torch.dtype) -> str:
    return f"product {product.name} {_NAMES[dtype]}"


def _product(product: Product, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*(shape if product.batch == 1 else (product.batch, *shape)), device=device).to(dtype)

    x, weight, grad = draw(product.n, product.k), draw(product.k, product.m), draw(product.n, product.m)
    y, grad_x, grad_weight = torch.empty_like(grad), torch.empty_like(x), torch.empty_like(weight)
    multiply = torch.mm if product.batch == 1 else torch.bmm

    def run() -> None:
        multiply(x, weight, out=y)
        multiply(grad, weight.mT, out=grad_x)
        multiply(x.mT, grad, out=grad_weight)

    return run
