from pathlib import Path

import pytest
import torch

from engram import kernels
from engram.config.model import ModelConfig
from engram.memory.placement.disk import DiskRows, create_rows
from engram.memory.placement.formats import FORMATS
from engram.memory.placement.row_file import RowSpec
from engram.memory.placement.serving import disk_rows, host_rows, serve
from engram.model import Transformer
from engram.model.generation import generate

SMALLEST = 80_000


def table(path: Path, rows: int, row_dim: int, row_format: str = "fp32", state: tuple[int, ...] = (), cache_bytes: int = SMALLEST):
    weights = torch.randn(rows, row_dim, generator=torch.Generator().manual_seed(rows))
    spec = RowSpec("test", rows, row_dim, row_format, sum(state))
    create_rows(path, spec, weights.split(37))
    return DiskRows(path, spec, cache_bytes, state), weights


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("row_dim", [1, 24, 200])
def test_files_of_serving_hold_what_ram_holds(name, row_dim, tmp_path):
    stored, weights = table(tmp_path / "a.rows", 5000, row_dim, name)
    in_ram = host_rows(weights.split(37), 5000, row_dim, name)
    for _ in range(5):
        ids = torch.randperm(5000)[:700]
        assert torch.equal(stored.read(ids), in_ram.read(ids))
    per_row = (tmp_path / "a.rows").stat().st_size / 5000
    assert per_row < FORMATS[name].row_bytes(row_dim) + 8 + 512  # small rows share a sector
    if FORMATS[name].row_bytes(row_dim) < 100:
        assert per_row < 1.4 * (FORMATS[name].row_bytes(row_dim) + 8) + 1
    stored.close()


MEMORIES = {
    "engram": {"design": "engram", "layers": [0, 2], "table_sizes": [400, 500], "n_heads": 2, "memory_dim": 16},
    "over-encoding": {"design": "over-encoding", "table_sizes": [400, 500], "n_heads": 2, "memory_dim": 16},
    "value": {"design": "value", "layers": [0, 2], "table_sizes": [400, 500], "n_heads": 2, "memory_dim": 16},
}


def build(memory: str) -> Transformer:
    config = ModelConfig.model_validate(
        {
            "vocab_size": 97,
            "width": 24,
            "n_layers": 3,
            "attention": {"kind": "mha", "n_heads": 3},
            "moe": {"n_routed_experts": 7, "top_k": 2, "expert_width": 8, "shared_width": 10},
            "memory": MEMORIES[memory],
            "table_init_std": 1.0,
        }
    )
    model = Transformer(config, torch.arange(97) // 2, 3)
    model.initialise(1)
    return model.eval()


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("place", ["host", "disk"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("memory", MEMORIES)
@torch.no_grad()
def test_a_served_model_says_what_it_says_with_its_tables_inside(memory, name, place, prefetch, tmp_path):
    """The same logits and continuations as with the rows of that format in the model, to the bit."""
    inside, outside = build(memory), build(memory)
    rows = []
    for number, table_set in enumerate(outside.lookup.table_sets):
        weight = table_set.weight.detach().clone()
        n, row_dim = weight.shape
        if place == "host":
            rows.append(host_rows([weight], n, row_dim, name))
        else:
            rows.append(disk_rows(tmp_path / f"{number}.rows", [weight], RowSpec(f"t{number}", n, row_dim, name), SMALLEST))
    for table_set in inside.lookup.table_sets:
        table_set.weight.copy_(FORMATS[name].decode(FORMATS[name].encode(table_set.weight)))
    served = serve(outside.lookup, rows, prefetch)
    try:
        with kernels.plain():
            tokens = torch.randint(0, 97, (3, 40))
            assert torch.equal(outside.logits(tokens), inside.logits(tokens))
            request = outside.request(tokens)
            assert torch.equal(outside(tokens, request=request), inside(tokens))
            prompts = [[1, 2, 3], [4], list(range(30))]
            assert generate(outside, prompts, 12, end_id=3, seed=1, temperature=1.0) == generate(
                inside, prompts, 12, end_id=3, seed=1, temperature=1.0
            )
        assert all(table_set.weight.is_meta for table_set in outside.lookup.table_sets)
        assert (served.traffic is not None) == (place == "disk")
    finally:
        served.close()
