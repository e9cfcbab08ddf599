import pytest

from engram.benchmarks.parts import PARTS
from engram.benchmarks.train import measure_training

pytestmark = pytest.mark.usefixtures("one_thread")


def test_parts_and_the_rest_are_the_whole_step(setup):
    speed = measure_training(setup, 0.5, seconds=0.05, rounds=2)
    assert [part.name for part in speed.parts] == [name for name in PARTS if name != "dense feed-forward"]
    assert sum(part.seconds.median for part in speed.parts) + speed.other_s == pytest.approx(speed.step_s.median)
    for part in speed.parts:
        assert 0 < part.seconds.low <= part.seconds.median <= part.seconds.high
        assert part.share == pytest.approx(part.seconds.median / speed.step_s.median)
    assert speed.tokens_per_s.high == pytest.approx(speed.tokens_per_step / speed.step_s.low)
    assert speed.products_share == pytest.approx(speed.flops_per_s / speed.products_flops_per_s, rel=0.02)
    assert speed.machine.precision == "fp32"
