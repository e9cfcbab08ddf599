import pytest
import torch

from engram import kernels
from engram.history import History
from engram.memory.fusion import convolved

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("few_programs")


@pytest.mark.parametrize(
    ("batch", "length", "branches", "width", "kernel", "dilation"),
    [(2, 23, 1, 144, 4, 3), (3, 7, 3, 24, 3, 2), (1, 150, 1, 32, 4, 3), (2, 2, 2, 8, 1, 1)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_convolution(
    device: torch.device,
    batch: int,
    length: int,
    branches: int,
    width: int,
    kernel: int,
    dilation: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, length, branches, width, device=device).to(dtype)
    norm, taps = torch.rand(branches, width, device=device) + 0.5, torch.randn(branches, width, kernel, device=device)
    grad = torch.randn(batch, length, branches, width, device=device)
    results = {}
    for plain in (False, True):
        inputs = [one.detach().clone().requires_grad_() for one in (x, norm, taps)]
        named = {"conv_norm": inputs[1], "conv": inputs[2]}
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16 and not plain):
            if plain:
                with kernels.plain():
                    y = convolved(named, inputs[0].float(), dilation, 1e-5, History())
            else:
                y = convolved(named, inputs[0], dilation, 1e-5, History())
        assert y.dtype == torch.float32
        y.backward(grad)
        results[plain] = [y.detach()] + [one.grad for one in inputs]
    for mine, expected in zip(results[False], results[True], strict=True):
        assert mine is not None
        assert expected is not None
        assert mine.dtype == expected.dtype
        mine, expected = mine.float(), expected.float()
        torch.testing.assert_close(mine, expected, rtol=10 * tolerance, atol=tolerance * float(expected.abs().max()))
