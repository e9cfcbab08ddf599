import pytest
import torch
from torch import Tensor

from engram.kernels import expert_ops
from tests.engram.kernels.gpu.compare import compare, numbers


@pytest.mark.parametrize(("n", "experts", "k"), [(70, 4, 4), (33, 31, 4), (3, 100, 3), (1, 130, 1)])
def test_routing(device: torch.device, n: int, experts: int, k: int):
    bias, seen = numbers(experts, seed=1, scale=0.3).to(device), []

    def weights(logits: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            found, chosen = expert_ops.route(logits, bias, k, 2.5)
        assert chosen.dtype == torch.int64
        order = chosen.argsort(dim=-1)  # which of a set comes first is nobody's business
        seen.append(chosen.gather(-1, order))
        return found.gather(-1, order)

    compare(weights, numbers(n, experts), device=device)
    assert all(torch.equal(seen[0], other) for other in seen[1:])


def test_equals_go_to_the_lower_number(device: torch.device):
    _, chosen = expert_ops.route(torch.zeros(5, 7, device=device), torch.zeros(7, device=device), 3, 1.0)
    assert chosen.tolist() == [[0, 1, 2]] * 5


def test_numbers_that_are_not_numbers_choose_experts_that_exist(device: torch.device):
    logits = numbers(5, 6).to(device)
    logits[2] = float("nan")
    weights, chosen = expert_ops.route(logits, torch.zeros(6, device=device), 4, 1.0)
    assert int(chosen.min()) >= 0
    assert int(chosen.max()) < 6
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    assert weights[2].isnan().all()
    assert not weights[[0, 1, 3, 4]].isnan().any()
