import pytest
import torch

from engram.kernels import ops
from tests.engram.kernels.gpu.compare import compare, numbers


@pytest.mark.parametrize(("n", "w"), [(1, 24), (37, 80), (130, 7)])
def test_swiglu(device: torch.device, n: int, w: int):
    compare(ops.swiglu, numbers(2, n, 2 * w, scale=2.0), device=device)


def test_dtype_is_kept(device: torch.device):
    x = numbers(9, 48).to(device, torch.bfloat16).requires_grad_()
    y = ops.swiglu(x)
    assert y.dtype == torch.bfloat16
    gate, up = x.float().chunk(2, dim=-1)
    torch.testing.assert_close(y.float(), torch.nn.functional.silu(gate) * up, rtol=1e-2, atol=1e-2)
    assert torch.autograd.grad(y.sum(), x)[0].dtype == torch.bfloat16
