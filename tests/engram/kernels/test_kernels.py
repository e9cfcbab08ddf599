"""Every compiled kernel against PyTorch's own operations, forwards and backwards."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from engram import kernels
from engram.config.model import RopeConfig
from engram.history import History
from engram.kernels import build, expert_ops, memory_ops, ops, optimizer_ops
from engram.memory.designs.base import Backbone
from engram.memory.designs.engram import Engram
from engram.memory.fusion import convolved, gated_values
from engram.memory.tables import EmbeddingTables
from engram.model.attention import attend, shift_half
from engram.model.head import mean_cross_entropy, token_cross_entropy
from engram.model.moe import RoutedExperts
from engram.model.rotary import rotary_tables, rotate
from engram.training.optimizers.muon import COEFFICIENTS, EPS, Muon, orthogonalise
from engram.training.optimizers.row_optimizer import AdamRows, RowOptimizer
from engram.training.optimizers.scalars import step_scalars

FP32, BF16 = 5e-6, 0.08
"""Largest relative deviation (Frobenius norm): rounding of a few sums, and of bf16 inputs."""
WIDE = bool(torch.cpu.get_capabilities().get("avx512_f"))
needs_kernels = pytest.mark.skipif(not WIDE or build.compiler() is None, reason="no AVX-512 or no C++ compiler")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    if WIDE and build.compiler() is not None:
        assert kernels.load() is None
    yield
    torch.set_num_threads(before)


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """Relative to the size of the numbers, or to a tenth where they cancel to less."""
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).norm() / (theirs.norm() + 0.1 * math.sqrt(theirs.numel())))


def compare(function: Callable[..., Tensor], *inputs: Tensor, fp32: float = FP32, bf16: float = BF16) -> None:
    """`function` with kernels, in fp32 and in bf16, against itself without, by value and by every gradient."""

    def run(half: bool) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            result = function(*leaves)
        result.backward(torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.dtype))
        return [result.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    with kernels.plain():
        expected = run(half=False)
    for half, limit in ((False, fp32), (True, bf16)):
        found = run(half)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            assert deviation(ours, theirs) < limit


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


rows = st.integers(1, 150)
even = st.integers(1, 40).map(lambda n: 2 * n)
blocks = st.integers(1, 8).map(lambda n: 8 * n)
"""What PyTorch's own grouped products can do."""


@needs_kernels
@settings(max_examples=25, deadline=None)
@given(n=rows, width_in=even, width_out=st.integers(1, 90))
def test_linear(n: int, width_in: int, width_out: int):
    compare(ops.linear, numbers(n, width_in), numbers(width_out, width_in, seed=1))


@needs_kernels
@settings(max_examples=15, deadline=None)
@given(n=rows, d=st.integers(2, 90))
def test_norm_and_activation(n: int, d: int):
    compare(lambda x, w: ops.rms_norm(x, w, 1e-6), numbers(n, d), numbers(d, seed=1))
    compare(ops.swiglu, numbers(n, 2 * d, scale=3))


@needs_kernels
@settings(max_examples=20, deadline=None)
@given(n=rows, d=even, vocabulary=st.integers(2, 300))
@example(n=1100, d=64, vocabulary=1024)
def test_head(n: int, d: int, vocabulary: int):
    targets = torch.randint(vocabulary, (n,), generator=torch.Generator().manual_seed(2))
    hidden, weight = numbers(n, d), numbers(vocabulary, d, seed=1, scale=0.3)
    compare(lambda h, w: mean_cross_entropy(h, w, targets), hidden, weight)
    losses = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(token_cross_entropy(hidden, weight, targets), losses, rtol=1e-5, atol=1e-5)


@needs_kernels
@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), length=rows, heads=st.integers(1, 3), half=st.integers(1, 20), shift=st.booleans())
def test_attention(batch: int, length: int, heads: int, half: int, shift: bool):
    rotary = rotary_tables(RopeConfig(), 2 * half, torch.arange(length))
    scale = 1 / math.sqrt(2 * half)

    def by_steps(qkv: Tensor) -> Tensor:
        query, key, value = qkv.unbind(2)
        key = shift_half(F.pad(key, (0, 0, 0, 0, 1, 0))) if shift else key
        return attend(rotate(query, rotary), rotate(key, rotary), value, None, scale)

    compare(lambda qkv: ops.causal_attention(qkv, *rotary, scale, shift, lambda: by_steps(qkv)), numbers(batch, length, 3, heads, 2 * half))


@needs_kernels
@settings(max_examples=20, deadline=None)
@given(n=rows, d=blocks, w=blocks, experts=st.integers(1, 12), k=st.integers(1, 4))
def test_experts_with_any_load(n: int, d: int, w: int, experts: int, k: int):
    k = min(k, experts)
    order = torch.rand(n, experts, generator=torch.Generator().manual_seed(3)) + torch.linspace(0, 2, experts)  # uneven
    chosen = order.topk(k).indices
    module = RoutedExperts(experts, d, w)

    def mixture(x: Tensor, gate_up: Tensor, out: Tensor, weights: Tensor) -> Tensor:
        del module.gate_up, module.out
        module.gate_up, module.out = gate_up, out  # type: ignore[assignment]
        mixed, load, _ = module(x, weights, chosen)
        assert load.tolist() == torch.bincount(chosen.flatten(), minlength=experts).tolist()
        return mixed

    weights = torch.rand(n, k, generator=torch.Generator().manual_seed(4))
    inputs = numbers(n, d), numbers(experts, d, 2 * w, seed=1, scale=0.2), numbers(experts, w, d, seed=2), weights
    compare(mixture, *inputs, fp32=2e-5)  # the gradient of a weight is one sum over the width, whose terms cancel


@needs_kernels
def test_routing():
    logits, bias = numbers(200, 31), numbers(31, seed=1, scale=0.3)
    chosen = {}

    def weights(x: Tensor) -> Tensor:
        found, experts = expert_ops.route(x, bias, 4, 2.5)
        order = experts.argsort(dim=-1)  # which of equal sets comes first is nobody's business
        chosen[len(chosen)] = experts.gather(-1, order)
        return found.gather(-1, order)

    compare(weights, logits)
    assert torch.equal(chosen[0], chosen[1])


@needs_kernels
@pytest.mark.parametrize(("kind", "branches"), [("plain", 1), ("signed_sqrt", 1), ("plain", 4)])
def test_gate_and_convolution(kind: str, branches: int):
    memory = Engram(layers=(0,), table_sizes=(9, 9), n_heads=2, memory_dim=12)
    declared = memory.weights(Backbone(width=20, n_layers=1, branches=branches, values_width=20, norm_eps=1e-6, residual_scale=1.0))
    names = list(declared)

    def update(vectors: Tensor, hidden: Tensor, *values: Tensor) -> Tensor:
        weights = dict(zip(names, values, strict=True))
        inside = gated_values(weights, vectors, hidden, kind, 1e-6)  # type: ignore[arg-type]
        return convolved(weights, inside, 3, 1e-5, History())

    drawn = [numbers(*weight.shape, seed=i) for i, weight in enumerate(declared.values())]
    # The slope of a square root magnifies the rounding of scores near 0.
    limits = {} if kind == "plain" else {"fp32": 1e-4, "bf16": 0.3}
    compare(update, numbers(2, 30, 12), numbers(2, 30, branches, 20, seed=90), *drawn, **limits)


@needs_kernels
@settings(max_examples=25, deadline=None)
@given(ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=80))
def test_distinct_rows(ids: list[int]):
    wanted = torch.tensor(ids)
    library = kernels.library(torch.zeros(1))
    assert library is not None
    distinct, places = torch.empty_like(wanted), torch.empty_like(wanted)
    found = library.count("distinct", wanted, distinct, places, len(ids))
    expected, inverse = torch.unique(wanted, return_inverse=True)
    assert torch.equal(distinct[:found], expected)
    assert torch.equal(places, inverse)


@needs_kernels
def test_a_step_of_the_tables_is_the_plain_one():
    tables = []
    for use in (True, False):
        table = EmbeddingTables([50, 70], 6)
        table.weight.data.copy_(numbers(120, 6))
        adam = RowOptimizer({"t": table}, AdamRows((0.9, 0.95), 1e-8))
        for step in range(3):
            indices = torch.randint(50, (40, 2), generator=torch.Generator().manual_seed(step))
            with kernels.plain() if not use else nullcontext():
                (table(indices) * numbers(40, 12, seed=step)).sum().backward()
                adam.step(step_scalars(step + 1, 0.1, 0.1, (0.9, 0.95)))
        tables.append(table.weight.detach())
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-5, atol=1e-6)


def orthogonalised(stack: Tensor, dtype: torch.dtype) -> Tensor:
    """What the kernel of Muon makes of gradients without momentum, as the weights that it leaves."""
    weights = torch.zeros_like(stack)
    matrices = weights, torch.zeros_like(stack), stack
    assert optimizer_ops.muon_step(matrices, 0.0, 0.0, -1.0, 5, COEFFICIENTS, EPS, dtype)
    return weights


@needs_kernels
@pytest.mark.parametrize("shape", [(7, 24, 96), (3, 96, 24), (2, 64, 64), (5, 2, 2), (3, 2, 20, 34), (36, 20), (2, 31, 17), (9, 96)])
def test_newton_schulz(shape: tuple[int, ...]):
    stack = numbers(*shape)
    expected = orthogonalise(stack, 5, torch.float32)
    assert deviation(orthogonalised(stack, torch.float32), expected) < 1e-4
    if not kernels.cpu_multiplies_bf16():
        matrices = torch.zeros_like(stack), torch.zeros_like(stack), stack
        assert not optimizer_ops.muon_step(matrices, 0.0, 0.0, -1.0, 5, COEFFICIENTS, EPS, torch.bfloat16)
        return
    # Five iterations of a steep polynomial magnify the rounding of bf16: what counts are the singular values.
    values = torch.linalg.svdvals(orthogonalised(stack, torch.bfloat16))
    torch.testing.assert_close(values, torch.linalg.svdvals(expected), rtol=0.05, atol=0.05)


@needs_kernels
def test_steps_of_muon_are_the_plain_ones():
    shapes = {"a.gate_up.weight": (24, 10), "b.qkv.weight": (36, 12), "c.gate_up": (5, 16, 12), "c.out": (5, 6, 16), "odd": (7, 9)}

    def weights_after(kernel: bool) -> dict[str, Tensor]:
        weights = {name: numbers(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
        muon = Muon(weights, momentum=0.95, iterations=5, weight_decay=0.1, dtype=torch.float32)
        for step in range(3):
            for i, weight in enumerate(weights.values()):
                weight.grad = numbers(*weight.shape, seed=100 * step + i)
            with nullcontext() if kernel else kernels.plain():
                muon.step(0.05)
        return weights | {f"momentum of {name}": buffer for name, buffer in muon.buffers.items()}

    ours, theirs = weights_after(kernel=True), weights_after(kernel=False)
    for name in theirs:
        assert deviation(ours[name], theirs[name]) < 1e-4, name


@needs_kernels
def test_kernels_keep_out_of_the_way():
    x, weight = numbers(4, 8), numbers(6, 8)
    assert kernels.library(x) is not None
    assert kernels.library(x.double()) is None
    torch.testing.assert_close(ops.linear(x.double(), weight.double()), x.double() @ weight.double().T)
    with kernels.plain():
        assert kernels.library(x) is None
        assert kernels.version() == "none"
    torch.set_num_threads(2)
    assert kernels.library(x) is None
    torch.set_num_threads(1)
    assert memory_ops.distinct(torch.empty(0, dtype=torch.int64)) is None
