import pytest
import torch
from torch import Tensor

from engram.kernels import ops
from tests.engram.kernels.gpu.compare import compare, numbers

EPS = 1e-5


@pytest.mark.parametrize(("n", "d"), [(1, 24), (37, 144), (70, 96)])
@pytest.mark.parametrize("used", ["both", "sum", "norm"])
def test_add_rms_norm(device: torch.device, n: int, d: int, used: str):
    def both(hidden: Tensor, pending: Tensor, weight: Tensor) -> Tensor:
        total, normed = ops.add_rms_norm(hidden, pending, weight, EPS)
        if used == "both":
            return torch.cat([total, normed.float()])
        return total if used == "sum" else normed.float() * weight.mean()

    weight = 1 + numbers(d, seed=1)
    if used == "sum":
        compare(lambda *x: both(*x, weight.to(device)), numbers(2, n, d, scale=3.0), numbers(2, n, d, seed=2), device=device)
    else:
        compare(both, numbers(2, n, d, scale=3.0), numbers(2, n, d, seed=2), weight, device=device)


def test_the_gradient_of_what_is_added_comes_in_its_dtype(device: torch.device):
    hidden, pending = numbers(5, 24).to(device).requires_grad_(), numbers(5, 24, seed=1).to(device, torch.bfloat16).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16):
        total, normed = ops.add_rms_norm(hidden, pending, torch.ones(24, device=device), EPS)
    assert (total.dtype, normed.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(total, hidden + pending)
    grads = torch.autograd.grad((total, normed), (hidden, pending), (torch.ones_like(total), numbers(5, 24, seed=2).to(normed)))
    assert [grad.dtype for grad in grads] == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(grads[0], grads[1].float(), rtol=1e-2, atol=1e-6)  # the interpreter rounds bf16 towards zero
