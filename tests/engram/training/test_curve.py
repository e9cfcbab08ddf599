import pytest

from engram.training.curve import add_point, empty_curve, tail_mean


def test_the_tail_is_the_end_of_the_steps_or_the_last_point():
    curve = empty_curve()
    for step in range(10, 101, 10):
        add_point(curve, step=step, train_loss=float(step))
    assert tail_mean(curve, "train_loss", 100) == 100
    for step in (96, 97, 98):
        add_point(curve, step=step, train_loss=1.0)
    assert tail_mean(curve, "train_loss", 100) == pytest.approx((100 + 3) / 4)
    assert set(map(len, curve.values())) == {13}
    assert curve["val_loss"] == [None] * 13
