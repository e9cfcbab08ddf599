"""Sums of rows by id, and what is made of them: the vocabulary embedding's gradient and steps of memory tables."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engram import kernels
from engram.kernels import ops
from engram.memory.row_sums import sums_by_row
from engram.memory.tables import EmbeddingTables
from engram.processes import ALONE
from engram.training.optimizers.rounding import round_at_random
from engram.training.optimizers.row_optimizer import AdagradRows, AdamRows, RoundedRows, RowOptimizer, RowRule
from engram.training.optimizers.scalars import step_scalars
from engram.training.replicas import clip_gradients

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
row_updates = pytest.importorskip("engram.kernels.gpu.row_updates")

BETAS = (0.9, 0.95)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def skewed(count: int, below: int, seed: int = 0) -> Tensor:
    """Ids of which small ones come often."""
    return (torch.rand(count, generator=torch.Generator().manual_seed(seed)) ** 6 * below).long()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("ids", "width"), [(skewed(1000, 50), 24), (skewed(333, 9), 144), (torch.zeros(4500, dtype=torch.int64), 3)])
def test_sums_by_row(device, dtype, ids, width):
    rows = random(len(ids), width).to(dtype)
    expected = torch.zeros(60, width, dtype=torch.float64).index_add_(0, ids, rows.double())
    keys = ids.sort().values
    heads = torch.cat([torch.tensor([0]), (keys[1:] != keys[:-1]).nonzero().flatten() + 1])
    (found,) = sums_by_row([(ids.int().to(device), rows.to(device))], [60])
    torch.testing.assert_close(found.sums.cpu()[heads], expected[keys[heads]].float(), rtol=1e-5, atol=1e-5)
    assert found.norms.norm().item() == pytest.approx(expected.norm().item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_vocabulary_embedding(device, dtype):
    tokens, weight = skewed(400, 70).view(4, 100), random(70, 144)
    if dtype == torch.int32:
        weight = random(33_000, 20)
    results = []
    for use in (True, False):
        with nullcontext() if use else kernels.plain():
            ours = weight.to(device).requires_grad_()
            out = ops.embedding(tokens.to(device)[:, :-1], ours)
            (out * random(*out.shape, seed=1).to(device)).sum().backward()
            results.append((out.detach(), ours.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-5)
    assert torch.equal(F.embedding(tokens[:, :-1], weight), results[0][0].cpu())


RULES: dict[str, Callable[[], RowRule]] = {"adam": lambda: AdamRows(BETAS, 1e-8), "adagrad": lambda: AdagradRows(1e-8)}


def trained(
    use: bool, kind: str, dtype: torch.dtype, device: torch.device, limit: float, steps: int = 3
) -> tuple[list[EmbeddingTables], RowOptimizer, list[float]]:
    """Two sets of tables after steps of two passes each; with the kernels or without."""
    tables = [EmbeddingTables([50, 70], 6, dtype=dtype), EmbeddingTables([31, 13], 6, dtype=dtype)]
    for number, table in enumerate(tables):
        table.weight.data.copy_(random(*table.weight.shape, seed=number))
        table.to(device)
    rule = RULES[kind]()
    optimizer = RowOptimizer({f"{i}": table for i, table in enumerate(tables)}, RoundedRows(rule) if dtype == torch.bfloat16 else rule)
    norms = []
    with nullcontext() if use else kernels.plain():
        for step in range(steps):
            for number, table in enumerate(tables):
                for part in range(2):
                    seed = 100 * step + 10 * number + part
                    indices = torch.stack([skewed(90, 50, seed), skewed(90, 13, seed + 5)], dim=-1) % 13
                    (table(indices.to(device)) * random(90, 12, seed=seed).to(device)).sum().backward()
            norms.append(clip_gradients([], optimizer.leaves(), limit, ALONE, optimizer.sums()).item())
            optimizer.step(step_scalars(step + 1, 0.1, 0.2, BETAS))
    assert not any(table.touched or table.summed for table in tables)
    return tables, optimizer, norms


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
@pytest.mark.parametrize("limit", [1.0, 1e6])
def test_steps_of_tables(device, kind, limit):
    ours, plain = (trained(use, kind, torch.float32, device, limit) for use in (True, False))
    assert ours[2] == pytest.approx(plain[2], rel=1e-5)
    for one, other in zip(ours[0], plain[0], strict=True):
        torch.testing.assert_close(one.weight, other.weight, rtol=1e-4, atol=1e-5)
    for name, parts in ours[1].state.items():
        for part, value in parts.items():
            torch.testing.assert_close(value, plain[1].state[name][part], rtol=1e-4, atol=1e-6)
    again = trained(True, kind, torch.float32, device, limit)
    assert all(torch.equal(one.weight, other.weight) for one, other in zip(ours[0], again[0], strict=True))


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
def test_steps_of_tables_in_bf16(device, kind):
    ours, exact = (trained(True, kind, dtype, device, 1e6, steps=1) for dtype in (torch.bfloat16, torch.float32))
    plain = trained(False, kind, torch.bfloat16, device, 1e6, steps=1)
    for one, other, reference in zip(ours[0], exact[0], plain[0], strict=True):
        assert one.weight.dtype == torch.bfloat16
        torch.testing.assert_close(one.weight, reference.weight, rtol=2**-7, atol=1e-6)  # one of the same two neighbours
        torch.testing.assert_close(one.weight.float(), other.weight, rtol=2**-6, atol=2e-3)


@triton.jit
def _round(x, out, numbers, n, tile: tl.constexpr):
    i = tl.arange(0, tile)
    row_updates._store(out, i, i < n, tl.load(x + i, mask=i < n), numbers)


def test_rounding_to_the_bit(device):
    x = torch.cat([random(500), 1e-30 * random(500), torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 3e38])])
    for step in (1, 2, 12345):
        out = torch.empty(len(x), dtype=torch.bfloat16, device=device)
        _round[(1,)](x.to(device), out, step_scalars(step, 0.1, 0.1, BETAS).for_kernels(device), len(x), 1024)
        assert torch.equal(out.cpu(), round_at_random(x, step))
