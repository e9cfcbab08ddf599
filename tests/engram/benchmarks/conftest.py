import pytest
import torch

from engram.benchmarks.shapes import Setup
from engram.scaling.ladder import LADDER


@pytest.fixture
def setup(tiny_corpus):
    """The smallest size on a tiny text, with the optimiser that has most parts."""
    return Setup(LADDER["1m"], "muon", tiny_corpus, torch.device("cpu"), "fp32")
