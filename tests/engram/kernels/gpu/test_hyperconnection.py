from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engram import kernels
from engram.kernels import gpu
from engram.model.hyperconnection import doubly_stochastic, merged, written

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("few_programs")

SIZES = [(4, 43, 48), (3, 5, 24), (16, 2, 8)]


def compare(run: Callable[..., Tensor], inputs: list[Tensor], tolerance: float) -> None:
    """The same values and gradients as without kernels."""
    results = {}
    for plain in (False, True):
        torch.manual_seed(1)
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        if plain:
            with kernels.plain():
                assert not gpu.usable(leaves[0])
                out = run(*leaves)
        else:
            out = run(*leaves)
        out.backward(torch.randn(out.shape, device=out.device).to(out.dtype))
        results[plain] = [out.detach(), *(x.grad for x in leaves)]
    for mine, expected in zip(results[False], results[True], strict=True):
        assert mine is not None
        assert expected is not None
        assert mine.dtype == expected.dtype
        mine, expected = mine.float(), expected.float()
        torch.testing.assert_close(mine, expected, rtol=10 * tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize(("branches", "count", "width"), SIZES)
def test_sinkhorn(device: torch.device, branches: int, count: int, width: int) -> None:
    torch.manual_seed(0)
    logits = 4 * torch.randn(branches, branches, count, device=device)
    logits[0, 0, 0] = 40  # a softmax with zeros
    compare(doubly_stochastic, [logits], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("branches", "count", "width"), SIZES)
def test_writing(device: torch.device, dtype: torch.dtype, branches: int, count: int, width: int) -> None:
    torch.manual_seed(0)
    post, residual = torch.rand(branches, count, device=device), torch.rand(branches, branches, count, device=device)
    out, hidden = torch.randn(count, width, device=device).to(dtype), torch.randn(count, branches, width, device=device)
    compare(written, [post, residual, out, hidden], 1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize(("branches", "count", "width"), SIZES)
def test_merging(device: torch.device, branches: int, count: int, width: int) -> None:
    torch.manual_seed(0)
    compare(merged, [torch.rand(branches, count, device=device), torch.randn(1, count, branches, width, device=device)], 1e-5)
