import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.config.model import RopeConfig
from engram.model.rotary import frequencies, rotary_tables, rotate


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10), st.integers(0, 30))
def test_rotary_scores_depend_on_distance_only(distance, offset):
    torch.manual_seed(1)
    q, k = torch.randn(1, 1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 1, 8, dtype=torch.float64)

    def score(i: int, j: int) -> torch.Tensor:
        tables = [rotary_tables(RopeConfig(), 8, torch.tensor([place])) for place in (i, j)]
        return (rotate(q, tables[0]) * rotate(k, tables[1])).sum()

    assert torch.allclose(score(offset + distance, offset), score(distance, 0), atol=1e-5)


def test_yarn_keeps_fast_channels_and_interpolates_slow_ones():
    rope = RopeConfig(yarn={"original_length": 4096, "scale": 10})
    plain, stretched = (frequencies(r, 64, torch.device("cpu")) for r in (RopeConfig(), rope))
    ratio = plain / stretched
    assert ratio[:5] == pytest.approx(1)
    assert ratio[-5:] == pytest.approx(10)
    assert (ratio.diff() >= -1e-5).all()
