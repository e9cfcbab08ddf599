import pytest
import torch

pytest.importorskip("triton")
from engram.kernels.gpu import grouping


@pytest.mark.parametrize(("n", "k", "experts"), [(1, 1, 1), (50, 4, 5), (333, 2, 100), (40, 3, 300), (500, 2, 7)])
def test_assignments_by_expert(device: torch.device, n: int, k: int, experts: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grouping, "_BLOCKS", 3)  # so that a program has several chunks
    chosen = torch.randint(experts, (n, k), generator=torch.Generator().manual_seed(0)).to(device)
    if experts > 2:
        chosen[chosen == 2] = 1  # an expert without tokens
    groups = grouping.grouped(chosen, experts, tile=64)
    order = chosen.flatten().argsort(stable=True)
    load = torch.bincount(chosen.flatten(), minlength=experts)
    assert groups.load.dtype == torch.int64
    assert torch.equal(groups.load, load)
    assert torch.equal(groups.order.long(), order)
    assert torch.equal(groups.place.long()[order], torch.arange(n * k, device=device))
    assert groups.starts.tolist() == [0, *load.cumsum(0).tolist()]
    assert groups.tile_ends.tolist() == (-(-load // 64)).cumsum(0).tolist()
    assert groups.tile_ends[-1] <= groups.most_tiles
