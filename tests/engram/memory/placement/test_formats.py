import pytest
import torch

from engram.memory.placement.formats import FORMATS


@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 0.0), ("bf16", 2**-8), ("int8", 1 / 127), ("fp8", 2**-3)])
def test_formats_keep_rows_within_their_precision(name, tolerance, tmp_path):
    rows = torch.randn(1000, 24)
    rows[5] = 0
    rows[6] *= 1e-6
    kind = FORMATS[name]
    stored = kind.encode(rows)
    assert stored.dtype == torch.uint8
    assert stored.shape == (1000, kind.row_bytes(24))
    back = kind.decode(stored)
    assert torch.all((back - rows).abs() <= tolerance * rows.abs().amax(-1, keepdim=True))
    assert torch.equal(kind.decode(kind.encode(back)), back) or name in ("int8", "fp8")
    assert torch.equal(back[5], rows[5])
    if name != "fp32":
        assert not torch.equal(back, rows)
