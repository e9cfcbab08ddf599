import pytest
import torch

from engram.benchmarks.dense_table import by_row, dense, measure_tables
from engram.benchmarks.shapes import memory_with_rows
from engram.errors import UserError
from engram.memory.lookup import MemoryLookup
from engram.scaling.accounting import table_rows

pytestmark = pytest.mark.usefixtures("one_thread")


def test_tables_that_are_compared(setup):
    memory = setup.sparse(0.5).memory
    assert table_rows(memory_with_rows(memory, 20_000)) == pytest.approx(20_000, rel=0.05)
    speed = measure_tables(setup, memory, 20_000, seconds=0.02, rounds=2)
    assert speed.rows == table_rows(memory_with_rows(memory, 20_000))
    assert speed.row_dim == memory.row_dim
    assert speed.table_bytes == 4 * speed.rows * speed.row_dim
    assert speed.ratio.low <= speed.ratio.median <= speed.ratio.high
    with pytest.raises(UserError, match=r"rows take .* GB are free; take fewer rows"):
        measure_tables(setup, memory, 10**12, seconds=0.02, rounds=1)


def test_both_ways_move_the_rows_of_the_batch_alike(setup, monkeypatch):
    memory = memory_with_rows(setup.sparse(0.5).memory, 2000)
    lookup = MemoryLookup(memory, torch.from_numpy(setup.corpus.compression.copy()), setup.corpus.end_of_text_id).train()
    tokens = torch.randint(setup.corpus.vocab_size, (2, 16))
    grad = torch.randn(2, 16, memory.reads * memory.row_dim)
    made = []

    class Zeros(torch.nn.Embedding):
        def reset_parameters(self):
            made.append(self)
            torch.nn.init.zeros_(self.weight)

    monkeypatch.setattr(torch.nn, "Embedding", Zeros)
    dense(lookup, [tokens], grad)()
    by_row(lookup, [tokens], grad)()
    (table,) = lookup.tables
    assert (table.weight != 0).any()
    torch.testing.assert_close(table.weight, made[0].weight, rtol=1e-4, atol=1e-12, check_stride=False)
