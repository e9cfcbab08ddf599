import pytest
import torch
from torch import nn

from engram.memory import tables as tables_module
from engram.memory.sharded import ShardedTables
from engram.memory.tables import EmbeddingTables, drawn_rows
from engram.processes import Processes


@pytest.mark.parametrize(("n_rows", "row_dim"), [(1, 3), (5, 3), (16, 1), (100, 3), (99, 7), (1000, 12), (4096, 16), (12_345, 5)])
def test_rows_drawn_in_pieces_are_those_drawn_at_once(n_rows, row_dim, monkeypatch):
    monkeypatch.setattr(tables_module, "_PIECE", 600)
    whole = nn.init.normal_(torch.empty(n_rows, row_dim), std=0.3, generator=torch.Generator().manual_seed(7))
    pieces = list(drawn_rows(n_rows, row_dim, 0.3, torch.Generator().manual_seed(7)))
    assert torch.equal(torch.cat([rows for _, rows in pieces]), whole)
    assert [start for start, _ in pieces] == [sum(len(rows) for _, rows in pieces[:i]) for i in range(len(pieces))]
    assert len(pieces) > 1 or n_rows * row_dim < 1200


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_are_the_rows_of_the_whole_table(count, monkeypatch):
    monkeypatch.setattr(tables_module, "_PIECE", 64)
    sizes, row_dim = [41, 43, 47], 3
    whole = EmbeddingTables(sizes, row_dim)
    whole.draw(1.0, torch.Generator().manual_seed(1))
    shards = []
    for rank in range(count):
        tables = ShardedTables(sizes, row_dim, Processes(rank, count))
        tables.draw(1.0, torch.Generator().manual_seed(1))
        shards.append(tables.weight)
    assert all(torch.equal(shard, whole.weight[rank::count]) for rank, shard in enumerate(shards))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_every_process_owns_its_share_of_every_head():
    sizes, count = [41, 43, 47, 53], 4
    owners = torch.arange(sum(sizes)) % count
    for head, part in zip(sizes, owners.split(sizes), strict=True):
        held = torch.bincount(part, minlength=count)
        assert held.max() - held.min() <= 1, head
