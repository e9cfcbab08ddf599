import pytest

from engram.evaluation.ruler.fit import PATIENCE, TRIAL, DoesNotFitError, draw_fitting, largest_size


def draw(size: int) -> tuple[str, list[str]]:
    return "x" * size, []


def test_largest_size():
    assert largest_size(draw, len, budget=37, step=5, bound=100) == 37
    assert largest_size(draw, len, budget=37, step=5, bound=8) == 10  # the bound is at least twice the step
    assert largest_size(draw, len, budget=3, step=5, bound=100) == 5


def test_sizes_go_down_by_the_step():
    assert draw_fitting(draw, len, length=22, reserved=10, size=31, step=10) == ("x" * 11, [], 21)
    # From 15 to 5, below the step; from 20 to 10 and no further.
    assert draw_fitting(draw, len, length=8, reserved=0, size=15, step=10)[2] == 5
    with pytest.raises(DoesNotFitError):
        draw_fitting(draw, len, length=8, reserved=0, size=20, step=10)


def test_a_length_out_of_reach_is_given_up_after_the_trial():
    drawn = []

    def counted(size: int) -> tuple[str, list[str]]:
        drawn.append(size)
        return "x" * size, []

    with pytest.raises(DoesNotFitError) as caught:
        draw_fitting(counted, len, length=4, reserved=1, size=5, step=5)
    assert len(drawn) == TRIAL
    assert set(caught.value.totals) == {6}


def test_luck_is_waited_for():
    lengths = [*(12 + number % 3 for number in range(TRIAL + 20)), 10]
    drawn = iter(lengths)
    assert draw_fitting(lambda size: ("x" * next(drawn), []), len, length=10, reserved=0, size=5, step=5)[2] == 10


def test_impossible_draws_end():
    drawn = []

    def impossible(size: int) -> tuple[str, list[str]]:
        drawn.append(size)
        raise ValueError("Sample larger than population")

    with pytest.raises(DoesNotFitError) as caught:
        draw_fitting(impossible, len, length=4, reserved=1, size=12, step=5)
    assert drawn[:3] == [12, 7, 2]
    assert len(drawn) == PATIENCE + 2
    assert caught.value.totals == ()
