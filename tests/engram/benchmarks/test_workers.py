import pytest
import torch

from engram.benchmarks.workers import train_side_by_side
from engram.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_copy_that_fails_ends_the_others(setup):
    wrong = type(setup)(setup.size, "muon", setup.corpus, torch.device("meta"))
    with pytest.raises(UserError, match="device 'meta' is unknown"):
        train_side_by_side(wrong, setup.sparse(1.0), 1.0, 2, 0.1, 1)
