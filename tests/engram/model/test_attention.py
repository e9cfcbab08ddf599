import torch

from engram.history import History
from engram.model.attention import shift_half


def test_key_shift_moves_half_of_the_channels_by_one():
    keys = torch.arange(1.0, 49).view(1, 6, 1, 8)
    shifted = shift_half(History().window("key", keys, 1))
    moved = (shifted[0, 1:, 0] == keys[0, :-1, 0]).all(0)
    kept = (shifted == keys).flatten(0, 2).all(0)
    assert moved.sum() == kept.sum() == 4
    assert (moved ^ kept).all()
    assert (shifted[0, 0, 0, moved] == 0).all()
    assert torch.equal(moved[:4], moved[4:]), "rotary pairs stay whole"
