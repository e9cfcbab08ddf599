import pytest
import torch

from engram.training.expert_loads import added_loads, load_spread


def test_spread_is_of_the_worst_layer_and_variation_of_the_mean_one():
    even, uneven = torch.full((4,), 5.0), torch.tensor([10.0, 10.0, 0.0, 0.0])
    assert load_spread([even]) == (1.0, 0.0)
    assert load_spread([even, uneven]) == (2.0, pytest.approx(0.5))
    assert load_spread([]) == (1.0, 0.0), "a model without experts"


def test_loads_add_up_from_nothing():
    loads = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])]
    once = added_loads([], loads)
    assert once == [[1, 2], [3, 0]]
    assert added_loads(once, loads) == [[2, 4], [6, 0]]
    assert added_loads([], []) == []
