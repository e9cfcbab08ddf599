import pytest
import torch
from torch import Tensor

from engram.kernels import ops
from tests.engram.kernels.gpu.compare import compare, numbers


@pytest.mark.parametrize(("n", "d"), [(1, 24), (37, 144), (70, 96)])
@pytest.mark.parametrize("multiplied", [True, False])
def test_rms_norm(device: torch.device, n: int, d: int, multiplied: bool):
    def normed(x: Tensor, weight: Tensor) -> Tensor:
        return ops.rms_norm(x, weight, 1e-5, multiplied)

    compare(normed, numbers(2, n, d, scale=3.0), 1 + numbers(d, seed=1), device=device)


def test_dtypes_and_strides(device: torch.device):
    wide, weight = numbers(3, 5, 40).to(device, torch.bfloat16).requires_grad_(), torch.ones(24, device=device)
    x = wide.split([24, 16], dim=-1)[0]  # as the latent of an attention layer
    with torch.autocast(device.type, torch.bfloat16):
        assert ops.rms_norm(x, weight, 1e-5).dtype == torch.float32
        y = ops.rms_norm(x, weight, 1e-5, multiplied=True)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), torch.nn.functional.rms_norm(x.float(), (24,), eps=1e-5), rtol=1e-2, atol=1e-2)
    (grad,) = torch.autograd.grad(y.sum(), wide)
    assert grad.dtype == torch.bfloat16
    assert not grad[..., 24:].any()
