"""From token ids to table rows."""

import pytest
import torch

from engram.memory.hashing import NgramHash

pytest.importorskip("triton")


@pytest.mark.parametrize(("sizes", "heads", "vocabulary"), [((50, 900), 3, 300), ((10_000,), 8, 129_280), ((7, 1_000_003, 20), 1, 5)])
def test_rows(device, sizes, heads, vocabulary):
    hashing = NgramHash([1, 3], sizes, heads, vocabulary, pad_id=2, seed=5).to(device)
    generator = torch.Generator().manual_seed(0)
    compression = torch.randint(vocabulary, (400,), generator=generator).to(device)
    tokens = torch.randint(400, (3, 51), generator=generator).to(device)[:, :-1]
    expected = hashing(compression[tokens]) + hashing.offsets[:, None, None]
    found = hashing.rows_on_gpu(tokens, compression)
    assert found.dtype == torch.int32
    assert torch.equal(found.long(), expected)
    one = hashing.rows_on_gpu(tokens[:, :1], compression)
    assert torch.equal(one, found[:, :, :1])
