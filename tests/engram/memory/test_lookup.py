import pytest
import torch

from engram.history import History
from engram.memory.designs.registry import DESIGNS
from engram.memory.designs.value import Value
from engram.memory.lookup import MemoryLookup


def test_layers_of_the_value_design_share_rows_and_take_slices():
    memory = Value(layers=(0, 1), table_sizes=(11, 13), n_heads=2, memory_dim=8)
    lookup = MemoryLookup(memory, torch.arange(50), 0).eval()
    assert len(lookup.tables) == 1
    table = lookup.tables[0].weight
    torch.nn.init.normal_(table)
    tokens = torch.randint(0, 50, (2, 5))
    one, two = lookup(tokens, History())
    rows = table[lookup.hash(tokens)[0] + lookup.tables[0].offsets]  # [B, T, H, 2 slices of 2]
    assert torch.equal(one, rows[..., :2].flatten(-2))
    assert torch.equal(two, rows[..., 2:].flatten(-2))


@pytest.mark.parametrize("name", DESIGNS)
def test_raw_ids_are_hashed_on_request(name):
    memory = DESIGNS[name].for_shape(48, 6)
    folded = torch.arange(50) // 2
    compressed, raw = (MemoryLookup(memory.model_copy(update={"compression": on}), folded, 0) for on in (True, False))
    assert compressed.compression.max() == 24
    assert raw.compression.tolist() == list(range(50))
