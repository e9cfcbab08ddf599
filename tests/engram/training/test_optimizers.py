import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.config import TrainConfig
from engram.memory.tables import EmbeddingTables
from engram.training.optimizers import RowAdam
from engram.training.schedule import rate_factor


def make_tables() -> EmbeddingTables:
    torch.manual_seed(0)
    tables = EmbeddingTables([11, 13], row_dim=4)
    torch.nn.init.normal_(tables.weight)
    return tables.train()


def test_rows_touched_in_every_step_equal_dense_adam():
    tables = make_tables()
    dense = tables.weight.detach().clone().requires_grad_()
    adam = torch.optim.Adam([dense], lr=0.05, betas=(0.9, 0.95), eps=1e-8)
    ours = RowAdam({"t": tables}, (0.9, 0.95), 1e-8)
    indices = torch.tensor([[[0, 1], [3, 1], [7, 12]]])
    rows = indices + tables.offsets
    for step in range(20):
        target = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(step))
        (tables(indices) - target).square().sum().backward()
        ours.step(0.05)
        adam.zero_grad()
        (torch.nn.functional.embedding(rows, dense).flatten(-2) - target).square().sum().backward()
        adam.step()
    assert torch.allclose(tables.weight, dense, atol=1e-5)


def test_only_rows_of_the_batch_change():
    tables = make_tables()
    before = tables.weight.clone()
    ours = RowAdam({"t": tables}, (0.9, 0.95), 1e-8)
    tables(torch.tensor([[[2, 5]]])).sum().backward()
    ours.step(0.1)
    changed = (tables.weight != before).any(1).nonzero().flatten().tolist()
    assert changed == [2, 16]
    first, second = ours.moments["t"]
    assert first.abs().sum(1).nonzero().flatten().tolist() == second.sum(1).nonzero().flatten().tolist() == [2, 16]


def test_two_passes_in_a_step_add_their_gradients():
    one, two = make_tables(), make_tables()
    optimizers = [RowAdam({"t": t}, (0.9, 0.95), 1e-8) for t in (one, two)]
    a, b = torch.tensor([[[2, 5], [3, 5]]]), torch.tensor([[[3, 5], [4, 0]]])
    one(torch.cat([a, b], dim=1)).square().sum().backward()
    two(a).square().sum().backward()
    two(b).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step(0.1)
    assert torch.allclose(one.weight, two.weight, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_rate_stays_between_zero_and_its_peak(steps, warmup, decay, final):
    train = TrainConfig(
        steps=steps, batch_size=1, seq_len=8, learning_rate=1.0, warmup_fraction=warmup, decay_fraction=decay, final_lr_fraction=final
    )
    factors = [rate_factor(train, step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_rate_by_hand():
    train = TrainConfig(steps=10, batch_size=1, seq_len=8, learning_rate=1.0, warmup_fraction=0.2, decay_fraction=0.4)
    factors = [round(rate_factor(train, step), 6) for step in range(10)]
    assert factors == [0.333333, 0.666667, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
