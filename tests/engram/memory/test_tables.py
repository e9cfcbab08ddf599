import torch

from engram.memory.tables import EmbeddingTables


def test_tables_read_the_rows_and_give_gradients_by_row():
    tables = EmbeddingTables([5, 7], row_dim=3)
    torch.nn.init.normal_(tables.weight)
    indices = torch.tensor([[[0, 6], [4, 6]]])  # [1, T, H]
    tables.train()
    out = tables(indices)
    expected = torch.cat([tables.weight[[0, 4]], tables.weight[[11, 11]]], dim=-1)
    assert torch.equal(out[0], expected)
    out.sum().backward()
    ((rows, leaf),) = tables.touched
    assert rows.tolist() == [0, 4, 11]
    assert leaf.grad[:, 0].tolist() == [1.0, 1.0, 2.0]
    assert tables.weight.grad is None
    tables.clear()
    assert torch.equal(tables.eval()(indices), out)
    assert tables.touched == []
